"""Manifests without a process: read, related to each other, and asked about. Nothing is started, bound or kept."""

import ipaddress
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from propylon import api
from propylon.app.addresses import assign, plan_addresses
from propylon.app.configuration import UpOptions, default_data_dir, merge_options, read_file_options
from propylon.app.dev_certificates import build_wanted, plan_dev_certificates
from propylon.app.documents import secret_document
from propylon.certificates.local_authority import LocalAuthority
from propylon.explain import Explanation, Request, explain
from propylon.explain import Settings as ExplainSettings
from propylon.graph import Settings, Sources, build_graph
from propylon.graph.model import BackendKey, Endpoint
from propylon.incremental import Engine
from propylon.store.files import FileProblem, FileSource, Severity

_BLOCK = ipaddress.IPv4Network("127.64.0.0/24")
"""Gateways that ask for no address get one of these, so that they can be told apart."""


class Manifests:
    """The objects of some directories and files, as a Graph. Every address that a Gateway asks for counts as there."""

    def __init__(self, options: UpOptions) -> None:
        """Read and relate. Never raises for what is in the manifests: see `problems`."""
        self.options = options
        self.source = FileSource(options.paths, variables=options.variables, variable_files=options.variable_files)
        self.loaded = self.source.load()
        self.problems: list[FileProblem] = list(self.loaded.problems)
        self.engine = Engine()
        self.sources = Sources.create(self.engine)
        controllers = frozenset(options.controllers) if options.controllers else None
        self.graph = build_graph(self.engine, self.sources, Settings(controllers=controllers))
        wanted = build_wanted(self.engine, self.sources, self.graph) if options.dev_certs else None
        for ref, item in self.loaded.objects.items():
            self._take(ref, item.document)
        for override in options.backends:
            key = BackendKey("Service", override.namespace, override.service, override.port)
            self.sources.endpoint_overrides.set(key, (Endpoint(override.host, override.host_port),))
        self.engine.commit()
        self._place_gateways()
        if wanted is not None:
            self._issue(plan_dev_certificates(wanted.snapshot().values(), self.sources.secrets.get))

    @property
    def errors(self) -> list[FileProblem]:
        """What could not be loaded."""
        return [problem for problem in self.problems if problem.severity is Severity.ERROR]

    def explain(self, request: Request | str, *, candidates: int = 20) -> Explanation:
        """What happens to a request under these manifests, and why.

        Services without EndpointSlices count as having endpoints: pods are in no manifest. Raises
        propylon.explain.ExplainError if the question cannot be answered as it was put.
        """
        asked = Request(request) if isinstance(request, str) else request
        known = any(True for _ in self.sources.endpoint_slices)
        settings = ExplainSettings(locate=self.source.locate, endpoints_known=known, candidates=candidates)
        return explain(self.graph, asked, settings)

    def _take(self, ref: api.ObjectRef, document: dict[str, Any]) -> None:
        source = self.sources.by_kind(ref.group, ref.kind)
        if source is None:
            return
        try:
            source.set(ref.key, api.decode(api.apply_defaults(document)))
        except api.DecodeError as error:
            file, line, column = self.source.locate(ref, error.field)
            problem = FileProblem(
                file, line, column, Severity.ERROR, str(error), object=str(ref), field=error.field, code="undecodable"
            )
            self.problems.append(problem)

    def _place_gateways(self) -> None:
        plan = plan_addresses(iter(self.sources.gateways), {}, _BLOCK)
        for key, gateway in self.sources.gateways.items():
            self.sources.addresses.set(key, assign(gateway, plan, self.options.port_offset, _is_address))
        self.engine.commit()

    def _issue(self, due: Sequence[Any]) -> None:
        with tempfile.TemporaryDirectory(prefix="propylon-") as directory:
            authority = LocalAuthority(Path(directory))
            for wanted in due:
                document = secret_document(wanted, *authority.issue(wanted.dns_names, wanted.ip_addresses))
                self.sources.secrets.set(wanted.secret, api.decode(api.apply_defaults(document)))
        self.engine.commit()


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def load(*paths: str | Path, **options: Any) -> Manifests:
    """Read manifests: directories, kustomizations, files.

    `options` are those of `propylon up` (`variables`, `dev_certs`, `port_offset`, `backends`, `controllers`); a
    `propylon.yaml` among the paths counts. Raises propylon.app.configuration.ConfigurationError, FileNotFoundError.
    """
    texts = tuple(str(path) for path in paths)
    missing = next((text for text in texts if text != "-" and not Path(text).exists()), None)
    if missing is not None:
        raise FileNotFoundError(f"{missing} does not exist")
    given = {"data_dir": default_data_dir(), **options, "paths": texts}
    return Manifests(merge_options(given, read_file_options(texts)))


def as_document(explanation: Explanation) -> dict[str, Any]:
    """The JSON form (docs/reference/explain.md)."""
    document: dict[str, Any] = msgspec.to_builtins(explanation)
    return {**document, "well": explanation.well}
