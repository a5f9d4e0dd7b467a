"""The store follows the manifests: at once, across restarts, and without letting go of what merely broke."""

import asyncio
import threading
import time

import pytest

from propylon.api.meta import ObjectRef
from propylon.store import GroupKind, LocalStore, NotFound
from propylon.store.files import Action, FilesController, FileSource, Severity

ROUTES = GroupKind("gateway.networking.k8s.io", "HTTPRoute")


def route(name="cart", host="cart.example.com", namespace="shop"):
    return (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n"
        f"metadata: {{name: {name}, namespace: {namespace}}}\n"
        f"spec: {{hostnames: [{host}]}}\n"
    )


def namespace(name):
    return f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n"


@pytest.fixture
def manifests(tmp_path):
    path = tmp_path / "manifests"
    path.mkdir()
    return path


@pytest.fixture
def store(tmp_path):
    with LocalStore(tmp_path / "data") as opened:
        yield opened


def controller(store, manifests, **options):
    return FilesController(store, FileSource([str(manifests)]), **options)


def hosts(store):
    return {document["metadata"]["name"]: document["spec"]["hostnames"] for document in store.list([ROUTES]).documents}


def settle(following, deadline=5.0):
    """Pass until nothing is left to be tried again."""
    end = time.monotonic() + deadline
    outcomes = following.sync()
    changes = list(outcomes.changes)
    while not outcomes.settled and time.monotonic() < end:
        outcomes = following.sync()
        changes.extend(outcomes.changes)
    return changes, outcomes


def test_changes_are_told_in_one_line_each(store, manifests):
    lines = []
    following = controller(store, manifests, on_change=lambda change: lines.append(str(change)))
    (manifests / "a.yaml").write_text("# shop\n" + route())
    following.sync()
    (manifests / "a.yaml").write_text("# shop\n" + route(host="new.example.com"))
    following.sync()
    (manifests / "a.yaml").unlink()
    settle(following)
    place = f"HTTPRoute shop/cart  {manifests}/a.yaml:2"
    assert lines == [f"created  {place}", f"changed  {place}", f"pruned   {place}"]


def test_a_namespace_that_was_created_for_an_object_is_said_as_long_as_the_object_is_there(store, manifests):
    (manifests / "a.yaml").write_text(route())
    following = controller(store, manifests)
    for _ in range(2):
        (notice,) = following.sync().problems
        assert notice.severity is Severity.NOTICE and "namespace shop was created" in notice.message


def test_pruning_works_across_restarts_and_touches_nothing_else(store, manifests):
    (manifests / "a.yaml").write_text(route("a"))
    (manifests / "b.yaml").write_text(route("b"))
    controller(store, manifests).sync()
    store.create({**store.get(ObjectRef(*ROUTES, "shop", "a")), "metadata": {"name": "by-hand", "namespace": "shop"}})
    (manifests / "a.yaml").unlink()
    outcomes = controller(store, manifests).sync()
    assert [(change.action, change.ref.name) for change in outcomes.changes] == [(Action.PRUNED, "a")]
    assert sorted(hosts(store)) == ["b", "by-hand"]


def test_a_file_that_is_empty_for_a_moment_prunes_nothing(store, manifests):
    following = controller(store, manifests)
    (manifests / "a.yaml").write_text(route())
    following.sync()
    (manifests / "a.yaml").write_text("")
    outcomes = following.sync()
    assert not outcomes.changes and not outcomes.settled
    (manifests / "a.yaml").write_text(route(host="new.example.com"))
    changes, _ = settle(following)
    assert [change.action for change in changes] == [Action.CHANGED]


def test_a_file_broken_at_the_start_keeps_what_the_store_has_of_it(store, manifests):
    (manifests / "a.yaml").write_text(route("a"))
    (manifests / "b.yaml").write_text(route("b"))
    controller(store, manifests).sync()
    (manifests / "a.yaml").write_text("spec: [\n")
    (manifests / "b.yaml").unlink()
    problems = []
    following = controller(store, manifests, on_problems=problems.append)
    following.sync()
    assert sorted(hosts(store)) == ["a"]
    assert problems[-1][0].severity is Severity.ERROR


def test_an_invalid_object_keeps_its_version_in_the_store(store, manifests):
    (manifests / "a.yaml").write_text(route("a") + "---\n" + route("b"))
    controller(store, manifests).sync()
    (manifests / "a.yaml").write_text(route("a", "not a host") + "---\n" + route("b", "new.example.com"))
    controller(store, manifests).sync()
    assert hosts(store) == {"a": ["cart.example.com"], "b": ["new.example.com"]}


def test_a_missing_directory_prunes_nothing(store, manifests, tmp_path):
    (manifests / "a.yaml").write_text(route())
    controller(store, manifests).sync()
    manifests.rename(tmp_path / "away")
    outcomes = controller(store, manifests).sync()
    assert hosts(store) and not outcomes.changes


def test_a_namespace_that_others_use_is_kept(store, manifests):
    (manifests / "a.yaml").write_text(namespace("shop") + "---\n" + namespace("empty"))
    following = controller(store, manifests)
    following.sync()
    secret = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "shop"}}
    store.create(secret)
    (manifests / "a.yaml").unlink()
    changes, _ = settle(following)
    assert {(change.action, change.ref.name) for change in changes} == {
        (Action.RELEASED, "shop"),
        (Action.PRUNED, "empty"),
    }
    store.get(ObjectRef("", "ConfigMap", "shop", "c"))
    with pytest.raises(NotFound):
        store.get(ObjectRef("", "Namespace", "", "empty"))


def test_fields_of_others_survive(store, manifests):
    (manifests / "a.yaml").write_text(route())
    following = controller(store, manifests)
    following.sync()
    held = store.get(ObjectRef(*ROUTES, "shop", "cart"))
    held["metadata"]["annotations"] = {"by": "hand"}
    store.update(held)
    (manifests / "a.yaml").write_text(route(host="new.example.com"))
    following.sync()
    assert store.get(held_ref := ObjectRef(*ROUTES, "shop", "cart"))["metadata"]["annotations"] == {"by": "hand"}
    assert store.get(held_ref)["spec"]["hostnames"] == ["new.example.com"]


def test_definitions_of_kinds_we_serve_change_nothing(store, manifests):
    (manifests / "crd.yaml").write_text(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n"
        "metadata: {name: gateways.gateway.networking.k8s.io}\nspec: {group: gateway.networking.k8s.io}\n"
    )
    (manifests / "a.yaml").write_text(route())
    outcomes = controller(store, manifests).sync()
    assert not [problem for problem in outcomes.problems if problem.severity is Severity.ERROR]
    assert hosts(store) == {"cart": ["cart.example.com"]}


def test_an_unavailable_store_is_a_problem_that_passes(store, manifests):
    (manifests / "a.yaml").write_text(route())
    pages = store._database._connection.execute("PRAGMA page_count").fetchone()[0]
    store._database._connection.execute(f"PRAGMA max_page_count = {pages}")
    following = controller(store, manifests)
    (manifests / "b.yaml").write_text("".join(route(f"r{number}") + "---\n" for number in range(50)))
    outcomes = following.sync()
    assert not outcomes.settled and outcomes.problems[-1].code == "store_unavailable"
    store._database._connection.execute("PRAGMA max_page_count = 1000000")
    _, outcomes = settle(following)
    assert outcomes.settled and len(hosts(store)) == 51


def running(store, manifests, steps):
    """Run the controller while `steps` go on."""

    async def run():
        following = controller(store, manifests)
        stop = asyncio.Event()
        task = asyncio.create_task(following.run(stop))
        watch = store.open_watch([ROUTES], store.resource_version)

        async def until(condition):
            async def wait():
                while not condition():
                    await watch.next_batch()

            await asyncio.wait_for(wait(), 10)

        try:
            await asyncio.wait_for(following.first_pass.wait(), 10)
            await steps(until)
        finally:
            stop.set()
            await asyncio.wait_for(task, 10)
            watch.close()

    asyncio.run(run())


def test_saved_edits_reach_the_store_however_they_are_saved(store, manifests):
    (manifests / "a.yaml").write_text(route())

    async def steps(until):
        (manifests / "a.yaml").write_text(route(host="written.example.com"))
        await until(lambda: hosts(store) == {"cart": ["written.example.com"]})
        (manifests / ".a.yaml.tmp").write_text(route(host="renamed.example.com"))
        (manifests / ".a.yaml.tmp").rename(manifests / "a.yaml")
        await until(lambda: hosts(store) == {"cart": ["renamed.example.com"]})
        (manifests / "sub").mkdir()
        (manifests / "sub" / "b.yaml").write_text(route("b"))
        await until(lambda: "b" in hosts(store))
        (manifests / "sub" / "b.yaml").write_text(route("b", "deep.example.com"))
        await until(lambda: hosts(store).get("b") == ["deep.example.com"])
        (manifests / "sub" / "b.yaml").unlink()
        await until(lambda: "b" not in hosts(store))

    running(store, manifests, steps)


def test_linked_data_directories_are_followed(store, manifests):
    """As Kubernetes mounts ConfigMaps: the files are links through a link that is swapped."""
    for name, host in (("..one", "one.example.com"), ("..two", "two.example.com")):
        (manifests / name).mkdir()
        (manifests / name / "a.yaml").write_text(route(host=host))
    (manifests / "..data").symlink_to("..one")
    (manifests / "a.yaml").symlink_to("..data/a.yaml")

    async def steps(until):
        await until(lambda: hosts(store) == {"cart": ["one.example.com"]})
        (manifests / "..new").symlink_to("..two")
        (manifests / "..new").rename(manifests / "..data")
        await until(lambda: hosts(store) == {"cart": ["two.example.com"]})

    running(store, manifests, steps)


def test_a_directory_that_comes_back_is_followed_again(store, manifests, tmp_path):
    (manifests / "a.yaml").write_text(route())

    async def steps(until):
        manifests.rename(tmp_path / "away")
        (tmp_path / "away" / "a.yaml").write_text(route(host="back.example.com"))
        (tmp_path / "away").rename(manifests)
        await until(lambda: hosts(store) == {"cart": ["back.example.com"]})
        (manifests / "a.yaml").write_text(route(host="again.example.com"))
        await until(lambda: hosts(store) == {"cart": ["again.example.com"]})

    running(store, manifests, steps)


async def watched(manifests, store, until):
    """Wait until an edit was seen, so that no pass over everything is under way that began before."""
    (manifests / "first.yaml").write_text(route("first"))
    await until(lambda: "first" in hosts(store))


def test_a_few_small_files_are_one_transaction_without_a_change_of_thread(store, manifests):
    """Files that are written at about the same time may need each other."""
    (manifests / "a.yaml").write_text(route())
    (manifests / "b.yaml").write_text(route("other"))
    threads, applied = [], []
    apply_many = store.apply_many

    def counted(documents, *arguments, **options):
        threads.append(threading.get_ident())
        applied.append(sorted(document["metadata"]["name"] for document in documents))
        return apply_many(documents, *arguments, **options)

    async def edit(until):
        await watched(manifests, store, until)
        store.apply_many = counted
        (manifests / "a.yaml").write_text(route(host="a.example.com"))
        (manifests / "b.yaml").write_text(route("other", host="b.example.com"))
        await until(lambda: hosts(store).items() >= {"cart": ["a.example.com"], "other": ["b.example.com"]}.items())

    running(store, manifests, edit)
    assert (applied, threads) == ([["cart", "other"]], [threading.get_ident()])


def test_a_file_that_is_being_written_has_no_effect_before_it_is_closed(store, manifests):
    (manifests / "a.yaml").write_text(route())
    (manifests / "b.yaml").write_text(route("other"))
    whole = route(host="whole.example.com")
    half = whole[: whole.index("spec:")]  # which is a route, too, but one for all hostnames

    async def edit(until):
        await watched(manifests, store, until)
        with (manifests / "a.yaml").open("w") as writing:
            writing.write(half)
            writing.flush()
            (manifests / "b.yaml").write_text(route("other", host="b.example.com"))
            await until(lambda: hosts(store)["other"] == ["b.example.com"])
            assert hosts(store)["cart"] == ["cart.example.com"]
            writing.write(whole[len(half) :])
        await until(lambda: hosts(store)["cart"] == ["whole.example.com"])

    running(store, manifests, edit)
