"""`propylon controller`: the same control plane on a Kubernetes API."""

import asyncio
import logging
import sys
import time
from pathlib import Path
from typing import Any

import click

from propylon.app.configuration import default_data_dir
from propylon.app.memory import hold_collection

FAILED, USAGE = 1, 2
RBAC_NAMESPACE, RBAC_NAME = "propylon-system", "propylon"


def _pools(_ctx: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[Any, ...]:
    from propylon.app.cluster_addresses import parse_pool  # noqa: PLC0415

    try:
        return tuple(parse_pool(value) for value in values)
    except ValueError as error:
        raise click.BadParameter(f"{error}: give a range such as 10.64.0.0/16 or fd00:64::/112") from error


@click.command()
@click.option(
    "--kubeconfig",
    type=click.Path(dir_okay=False),
    default=None,
    show_default="the pod's service account, else $KUBECONFIG, else ~/.kube/config",
    help="How to reach the API server.",
)
@click.option("--context", default=None, show_default="the current one", help="Which context of the kubeconfig.")
@click.option(
    "--controller-name",
    default="propylon.dev/gateway-controller",
    show_default=True,
    help="Adopt the GatewayClasses of this controllerName, and no others.",
)
@click.option(
    "--proxies",
    type=click.Choice(["process", "kubernetes"]),
    default="process",
    show_default=True,
    help="process: each Gateway's Envoy is a process of this machine. kubernetes: a Deployment behind a Service.",
)
@click.option(
    "--address-pool",
    "address_pools",
    multiple=True,
    callback=_pools,
    metavar="CIDR",
    help="Addresses of this machine for Gateways that ask for none. Repeatable.",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_data_dir,
    show_default="$PROPYLON_DATA_DIR, else ~/.local/share/propylon",
    help="Where logs and sockets of the proxies live.",
)
@click.option(
    "--leader-elect/--no-leader-elect", default=True, show_default=True, help="Let one of several replicas write."
)
@click.option(
    "--lease-namespace", default=None, show_default="that of the credentials", help="Where the replicas' Lease is."
)
@click.option(
    "--concurrency", type=click.IntRange(0, 256), default=0, help="Worker threads of each Envoy; 0: automatic."
)
@click.option(
    "--access-log/--no-access-log", default=True, show_default=True, help="One line a request in `propylon logs`."
)
@click.option(
    "--backend-statistics/--no-backend-statistics",
    default=True,
    show_default=True,
    help="Have Envoy count status codes and times of answers by backend too (6 % of its work for a request).",
)
@click.option(
    "--health-listen",
    default="",
    metavar="HOST:PORT",
    show_default="nowhere",
    help="Where /healthz and /readyz are answered; :PORT for every address of the machine.",
)
@click.option("--proxy-image", default=None, help="kubernetes: Envoy's image, unless parameters name another.")
@click.option(
    "--xds-listen",
    default=None,
    metavar="IP:PORT",
    show_default="0.0.0.0:18000, [::]:18000 in a pod with an IPv6 address",
    help="kubernetes: where proxies are served their configuration.",
)
@click.option(
    "--xds-address",
    default="",
    metavar="HOST:PORT",
    show_default="the Service propylon-xds",
    help="kubernetes: where proxies look for it.",
)
@click.option("--pod-ip", default="", envvar="POD_IP", help="kubernetes: address of this replica.  [$POD_IP]")
@click.option(
    "--cluster-domain", default="cluster.local", show_default=True, help="kubernetes: DNS domain of the cluster."
)
@click.option("-v", "--verbose", is_flag=True, help="Log every step.")
@click.option(
    "--print-rbac", is_flag=True, help="Print the ServiceAccount, roles and bindings that it needs, and exit."
)
def controller(
    kubeconfig: str | None, context: str | None, proxies: str, verbose: bool, print_rbac: bool, **options: Any
) -> None:
    """Serve the Gateways of a Kubernetes cluster with real Envoy."""
    pods = {
        name: options.pop(name) for name in ("proxy_image", "xds_listen", "xds_address", "pod_ip", "cluster_domain")
    }
    if print_rbac:
        _print_rbac(options["lease_namespace"] or RBAC_NAMESPACE, proxies)
        return
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(levelname)s %(name)s: %(message)s",
        stream=sys.stdout,
    )
    sys.exit(_run(kubeconfig, context, options, pods if proxies == "kubernetes" else None))


def _run(
    kubeconfig: str | None, context: str | None, options: dict[str, Any], pods: dict[str, str | None] | None
) -> int:
    hold_collection()
    from propylon.app.cluster import ClusterOptions, ClusterRuntime  # noqa: PLC0415 - only here the libraries are needed
    from propylon.proxies.settings import ProxyError  # noqa: PLC0415
    from propylon.store.cluster import CredentialsError, load_credentials  # noqa: PLC0415

    began = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began:9.3f}  {line}", flush=True)

    async def serve() -> int:
        if pods is None:
            return await ClusterRuntime(ClusterOptions(**options), credentials, say).run()
        from propylon.app.cluster_proxies import KubernetesRuntime, build_pod_options  # noqa: PLC0415

        pod_options = build_pod_options(options["lease_namespace"] or credentials.namespace, **pods)
        return await KubernetesRuntime(ClusterOptions(**options), pod_options, credentials, say).run()

    try:
        credentials = load_credentials(kubeconfig, context)
    except CredentialsError as error:
        click.echo(f"propylon controller: {error}", err=True)
        return USAGE
    try:
        return asyncio.run(serve())
    except (ProxyError, OSError, ValueError) as error:
        click.echo(f"propylon controller: {error}", err=True)
        return FAILED


def _print_rbac(namespace: str, proxies: str) -> None:
    import yaml  # noqa: PLC0415

    from propylon.app.cluster import LEASE_NAME  # noqa: PLC0415
    from propylon.app.cluster_rbac import build_pod_manifests, build_process_manifests  # noqa: PLC0415

    assert LEASE_NAME == RBAC_NAME
    build = build_pod_manifests if proxies == "kubernetes" else build_process_manifests
    manifests = build(namespace, RBAC_NAME)
    click.echo(yaml.safe_dump_all(manifests, sort_keys=False), nl=False)


if __name__ == "__main__":
    controller()
