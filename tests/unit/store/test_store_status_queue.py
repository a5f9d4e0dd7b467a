from propylon import api
from propylon.store.status_queue import StatusQueue


def ref(kind, name):
    return api.ObjectRef(api.GATEWAY_GROUP, kind, "shop", name)


def test_gateways_go_before_routes_and_the_rest_in_order_of_arrival():
    queue = StatusQueue()
    queue.add([ref("HTTPRoute", "b"), ref("HTTPRoute", "a")])
    queue.add([ref("Gateway", "gw"), ref("HTTPRoute", "b")])
    assert [each.name for each in queue.head(10)] == ["gw", "b", "a"]
    assert len(queue) == 3


def test_what_is_next_stays_until_it_is_done():
    queue = StatusQueue()
    queue.add(ref("HTTPRoute", str(number)) for number in range(5))
    first = queue.head(2)
    assert first == queue.head(2)
    queue.done(first)
    assert [each.name for each in queue.head(10)] == ["2", "3", "4"]
    queue.done(queue.head(10))
    assert not queue
