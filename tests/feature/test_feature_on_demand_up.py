"""gRPC calls to a Gateway of more backends than a proxy is told the twins of, through all of `propylon up`."""

from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from propylon.xds.world import MANY
from support.instance import Instance
from support.manifests import GATEWAY, OFFSET, route, service, to, write

pytestmark = [pytest.mark.feature, pytest.mark.timeout(120)]
CALLED = 40


class Echo(grpc.GenericRpcHandler):
    def service(self, _details):
        return grpc.unary_unary_rpc_method_handler(lambda message, _context: message)


@pytest.fixture
def backend():
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0).wait()


def test_a_controller_that_dies_costs_no_call(tmp_path: Path, backend: str) -> None:
    numbers = range(MANY + 1)
    manifests = write(
        tmp_path / "manifests",
        gateway=GATEWAY,
        services="---\n".join(service(f"s{n}") for n in numbers),
        routes="---\n".join(route(f"r{n}", f"{n}.test", to(f"s{n}")) for n in numbers),
    )
    addresses = [argument for n in range(CALLED) for argument in ("--backend", f"default/s{n}={backend}")]
    with Instance(tmp_path, str(manifests), "--port-offset", str(OFFSET), "--no-echo", *addresses) as instance:
        instance.wait()
        address, port = instance.place("default/web", "http")

        def call(number: int) -> bytes:
            options = [
                ("grpc.default_authority", f"{number}.test"),
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.enable_retries", 0),
            ]
            with grpc.insecure_channel(f"{address}:{port}", options) as channel:
                answer: bytes = channel.unary_unary("/echo.Echo/Say")(b"%d" % number, timeout=40)
                return answer

        with ThreadPoolExecutor(10) as pool:
            assert [call(n) for n in range(5)] == [b"%d" % n for n in range(5)]
            instance.kill()
            assert [call(n) for n in range(5)] == [b"%d" % n for n in range(5)]
            waiting = [pool.submit(call, n) for n in range(5, 15)]
            done, _ = futures.wait(waiting, timeout=0.3)
            assert not done
            instance.start()
            assert [each.result() for each in waiting] == [b"%d" % n for n in range(5, 15)]
            instance.wait()
            assert list(pool.map(call, range(CALLED))) == [b"%d" % n for n in range(CALLED)]
