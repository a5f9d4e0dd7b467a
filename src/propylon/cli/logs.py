"""`propylon logs`: what a Gateway's proxy wrote, whether or not propylon runs."""

import asyncio
from pathlib import Path

import click

from propylon.proxies.process import ProcessProxies
from propylon.proxies.settings import ProxyError


def print_log(gateway: str, data_dir: Path, follow: bool, tail: int) -> int:
    """Print the log of one Gateway and return the exit code: 1 if there is none of that name, or several."""
    nodes = sorted("/".join(log.parts[-3:-1]) for log in data_dir.glob("proxies/*/*/envoy.log"))
    found = [n for n in nodes if gateway in {n, n.partition("/")[2]}]
    if len(found) != 1:
        reason = f"several Gateways have that name: {', '.join(found)}" if found else "there is no log of it"
        have = f"; there are logs of {', '.join(nodes)}" if nodes and not found else ""
        click.echo(f"propylon logs: {gateway}: {reason}{have}", err=True)
        return 1

    async def show() -> None:
        async for line in ProcessProxies(data_dir).read_log(found[0], tail=tail, follow=follow):
            click.echo(line)

    try:
        asyncio.run(show())
    except ProxyError as error:
        click.echo(f"propylon logs: {error}", err=True)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
