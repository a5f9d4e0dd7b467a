import socket
from pathlib import Path

from propylon import api
from propylon.app.addresses import (
    AddressFile,
    assign,
    loopback_block,
    machine_has,
    parse_pool,
    plan_addresses,
    port_obstacle,
)

A, B, C = (api.ObjectKey("default", name) for name in "abc")


def gateway(*addresses: str) -> api.Gateway:
    spec = {"gatewayClassName": "x", "listeners": [], "addresses": [{"value": a} for a in addresses]}
    decoded = api.decode(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "a", "namespace": "default"},
            "spec": spec,
        }
    )
    assert isinstance(decoded, api.Gateway)
    return decoded


def test_addresses_stay_with_their_gateways(tmp_path: Path) -> None:
    block = loopback_block(tmp_path)
    first = plan_addresses([B], {}, block)
    both = plan_addresses([A, B], first, block)
    assert both["default/b"] == first["default/b"]
    assert len(set(both.values())) == 2
    assert plan_addresses([C], both, block).items() >= both.items(), "a Gateway that is gone may come back"
    assert all(a.startswith("127.") for a in both.values())


def test_pools_come_before_loopback_addresses(tmp_path: Path) -> None:
    block, pools = loopback_block(tmp_path), (parse_pool("192.0.2.8/30"), parse_pool("2001:db8::/127"))
    before = plan_addresses([A], {}, block)
    plan = plan_addresses([A, B], before, block, pools)
    assert plan == {"default/a": "192.0.2.9", "default/b": "192.0.2.10"}
    assert plan_addresses([C], plan, block, pools)["default/c"] == "2001:db8::"
    assert "default/c" not in plan_addresses([C], plan, block, pools[:1]), "nothing is left"


def test_more_gateways_than_a_block(tmp_path: Path) -> None:
    many = plan_addresses([api.ObjectKey("n", str(i)) for i in range(1000)], {}, loopback_block(tmp_path))
    assert len(set(many.values())) == 1000


def test_the_file_survives_spoiling(tmp_path: Path) -> None:
    file = AddressFile(tmp_path / "addresses.json")
    assert file.read() == {}
    file.write({"default/a": "127.70.0.1"})
    assert file.read() == {"default/a": "127.70.0.1"}
    (tmp_path / "addresses.json").write_text("{")
    assert file.read() == {}


def test_requested_addresses_come_first() -> None:
    got = assign(gateway("127.0.0.1"), {"default/a": "127.70.0.1"}, 0, machine_has)
    assert got.bind == ("127.0.0.1",)
    assert got.finding is None
    missing = assign(gateway("203.0.113.7"), {"default/a": "127.70.0.1"}, 0, machine_has)
    assert missing.bind == ()
    assert missing.finding is not None
    assert missing.finding.reason == "AddressNotUsable"
    assert "203.0.113.7" in missing.finding.message


def test_a_taken_port_is_found_even_if_shared() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        found = port_obstacle("127.0.0.1", port, "TCP")
        assert found is not None
        assert found.reason == "in use"
        assert str(port) in found.message
    assert port_obstacle("127.0.0.1", port, "TCP") is None
    foreign = port_obstacle("203.0.113.7", port, "TCP")
    assert foreign is not None
    assert foreign.reason == "no such address"
