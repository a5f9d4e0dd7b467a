"""Changes to a document that may break it: what is changed is told in words, so that a disagreement can be read."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from propylon import api
from propylon.api.introspect import FieldSpec, ItemsSpec, MapSpec, ScalarSpec, StructSpec, TypeSpec, struct_spec

from .generation import UNIONS, Generator, Object
from .zoo import STRINGS, near_scalar, telling_scalars

ODD_VALUES: tuple[Any, ...] = (
    *(None, "", "a", "1", "true", 0, 1, -1, 1.5, 80.0, True, False, [], {}, [None], ["a"], [[]], [{}], {"a": "b"}),
    {"name": "a"},
    {"a": None},
)
METADATA_CHANGES: tuple[tuple[str, Any], ...] = (
    *(
        ("name", value)
        for value in ("A", "a_b", "a.b", "-a", "x" * 253, "x" * 254, "", "a/b", "a.", "1", "é", ".", "..")
    ),
    *(("name", value) for value in (None, 1, ["a"])),
    *(("labels", {key: "b"}) for key in ("a", "a/b", "a/b/c", "", "A_", "-a", "x" * 63, "x" * 64, "a./b", "A.com/b")),
    *(("labels", {key: "b"}) for key in ("y" * 253 + "/a", "y" * 254 + "/a", "/a", "a/", "ä")),
    *(("labels", {"a": value}) for value in ("", "B", "b_", "a b", "x" * 63, "x" * 64, "-", None, 1, True, [], "ä")),
    *(("labels", value) for value in (None, [], "a", {}, 1)),
    *(("annotations", {key: "b"}) for key in ("a", "A/b", "Example.com/B", "a b", "a/b/c", "", "x" * 63, "x" * 64)),
    *(("annotations", {"a": value}) for value in ("", "ä b\n", None, 1, [], "x" * 262_143, "x" * 262_144)),
    ("annotations", {"a": "ü" * 131_072}),
    ("annotations", {"ab": "ü" * 131_071}),
    *(("annotations", value) for value in (None, [], "a", {})),
    *(("finalizers", value) for value in (None, [], ["a"], ["example.com/a"], ["a b"], "a", [1], [None], ["a/b/c"])),
    *(("ownerReferences", value) for value in (None, [], [{}], [{"apiVersion": "v1", "kind": "A", "name": "a"}], "a")),
    ("ownerReferences", [{"apiVersion": "v1", "kind": "A", "name": "a", "uid": "u"}]),
    ("ownerReferences", [{"apiVersion": "v1", "kind": "A", "name": "a", "uid": "u", "controller": True}] * 2),
    (
        "ownerReferences",
        [{"apiVersion": "v1", "kind": "A", "name": name, "uid": name, "controller": True} for name in "ab"],
    ),
    (
        "ownerReferences",
        [{"apiVersion": "v1", "kind": "A", "name": "a", "uid": uid, "controller": True} for uid in "ab"],
    ),
    ("ownerReferences", [{"apiVersion": "v1", "kind": "Event", "name": "a", "uid": "u"}]),
    ("ownerReferences", [{"apiVersion": "v1", "kind": "A", "name": "a", "uid": "u", "controller": None, "b": None}]),
    *(("finalizers", value) for value in (["orphan", "foregroundDeletion"], ["orphan"], ["a", "a"], [""])),
    *(("creationTimestamp", f"2026-01-02{rest}") for rest in ("t03:04:05Z", "T03:04:05z", "T03:04:05.5Z", "T03:04:05")),
    *(
        ("creationTimestamp", f"2026-01-02T{rest}")
        for rest in ("24:00:00Z", "23:59:60Z", "03:04:05,5Z", "03:04:05+25:00")
    ),
    *(("deletionTimestamp", value) for value in (None, "2026-01-02T03:04:05+24:60", "2026-02-30T03:04:05Z", "", 1)),
    *(("deletionGracePeriodSeconds", value) for value in (None, 1, -1, 1.0, 2**63, "1")),
    *(("resourceVersion", value) for value in (None, "", 1)),
    ("ownerReferences", [{"apiVersion": "a/b/c", "kind": "A", "name": "a", "uid": "u"}]),
    ("ownerReferences", [{"apiVersion": "v1", "kind": "", "name": "a", "uid": "u"}]),
    *(("generation", value) for value in (1, -1, "1", 1.5, 1.0, 2**63, None)),
    *(("creationTimestamp", value) for value in (None, "2026-01-02T03:04:05Z", "yesterday", 1, "")),
    *(("unknown", value) for value in (None, 1, {})),
    *(("generateName", value) for value in ("a-", "A", "-", "a.", "a.-", "a--", "x" * 253, 1, None)),
    *(("uid", value) for value in ("u", 1, None)),
    *(("clusterName", value) for value in ("a",)),
    *(("selfLink", value) for value in ("/a", 1)),
)
"""Values of fields of metadata: what the API server thinks of them is not in the CRDs."""


class Site(NamedTuple):
    """A value in a document: the container that holds it, its key there, its type, and its path for people."""

    container: Any
    key: Any
    spec: TypeSpec
    path: str

    @property
    def name(self) -> str:
        """The field it is, or is an item of."""
        return re.sub(r"\[[^\]]*\]", "", self.path).rpartition(".")[2]


class Change(NamedTuple):
    """A document after a change, and the change in words."""

    document: Object
    told: str


class Mutator:
    """Breaks documents. `parts` says below which field (spec or status)."""

    def __init__(self, source: random.Random, part: str) -> None:
        self.random = source
        self.part = part
        self.generator = Generator(source)

    def mutate(self, document: Object, times: int) -> Change:
        """The document with some changes."""
        changed = copy.deepcopy(document)
        told = [self._once(changed) for _ in range(times)]
        return Change(changed, "; ".join(told))

    def _once(self, document: Object) -> str:
        if self.part == "spec" and self.random.random() < 0.06:
            return self._metadata(document)
        if self.random.random() < 0.015:
            return self._top(document)
        sites = list(_sites(document, self.part))
        if not sites:
            return self._top(document)
        # The places that are many (items of lists) shall not hide the places that are few.
        groups: dict[str, list[Site]] = {}
        for site in sites:
            groups.setdefault(site.name, []).append(site)
        site = self.random.choice(groups[self.random.choice(sorted(groups))])
        changes = self._changes(site)
        change = self.random.choices([change for _, change in changes], [weight for weight, _ in changes])[0]
        return change(site)

    def _top(self, document: Object) -> str:
        key, value = self.random.choice(
            (
                (self.part, None),
                (self.part, {}),
                (self.part, "a"),
                (self.part, []),
                ("unknown", 1),
                ("hostnames", ["a.example.com"]),
                ("data", {"a": "b"}),
            )
        )
        document[key] = value
        return f"{key} = {value!r}"

    def _metadata(self, document: Object) -> str:
        key, value = self.random.choice(METADATA_CHANGES)
        if isinstance(document.get("metadata"), dict):
            document["metadata"][key] = value
        return f"metadata.{key} = {_short(value)}"

    def _changes(self, site: Site) -> list[tuple[float, Callable[[Site], str]]]:
        value = site.container[site.key]
        changes: list[tuple[float, Callable[[Site], str]]] = [
            (2, self._remove),
            (1.5, self._null),
            (2, self._odd),
            (2, self._regenerate),
        ]
        match site.spec:
            case ScalarSpec():
                changes += [(14, self._near)]
            case StructSpec() if isinstance(value, dict):
                changes += [(6, self._add_field), (2, self._unknown_field), (1.5, self._rename), (1, self._empty)]
                if site.spec.struct.__name__ in UNIONS:
                    changes += [(8, self._add_member)]
            case ItemsSpec() if isinstance(value, list):
                changes += [
                    (6, self._repeat),
                    (3, self._fill_up),
                    (1.5, self._odd_item),
                    (3, self._grow),
                    (1, self._empty),
                ]
            case MapSpec() if isinstance(value, dict):
                changes += [(6, self._odd_key), (3, self._fill_map), (1, self._empty), (2, self._odd_entry)]
        return changes

    # --- any value ---

    def _set(self, site: Site, value: Any) -> str:
        site.container[site.key] = value
        return f"{site.path} = {_short(value)}"

    def _remove(self, site: Site) -> str:
        del site.container[site.key]
        return f"{site.path} removed"

    def _null(self, site: Site) -> str:
        return self._set(site, None)

    def _odd(self, site: Site) -> str:
        return self._set(site, copy.deepcopy(self.random.choice(ODD_VALUES)))

    def _empty(self, site: Site) -> str:
        return self._set(site, type(site.container[site.key])())

    def _regenerate(self, site: Site) -> str:
        return self._set(site, self.generator.value(site.spec, self.random.choice((0.1, 0.5, 0.9)), 3))

    def _near(self, site: Site) -> str:
        assert isinstance(site.spec, ScalarSpec)
        return self._set(site, near_scalar(site.spec, self.random, site.name))

    # --- structs ---

    def _add_field(self, site: Site) -> str:
        assert isinstance(site.spec, StructSpec)
        absent = [field for key, field in site.spec.fields.items() if key not in site.container[site.key]]
        if not absent:
            return self._unknown_field(site)
        return self._add(site, self.random.choice(absent))

    def _add_member(self, site: Site) -> str:
        assert isinstance(site.spec, StructSpec)
        members = UNIONS[site.spec.struct.__name__][1].values()
        return self._add(
            site, site.spec.fields[self.random.choice([key for key in members if key in site.spec.fields])]
        )

    def _add(self, site: Site, field: FieldSpec) -> str:
        value = self.generator.value(field.type, self.random.choice((0.1, 0.5, 0.9)), 3)
        site.container[site.key][field.name] = value
        return f"{site.path}.{field.name} = {_short(value)}"

    def _unknown_field(self, site: Site) -> str:
        key = self.random.choice(("unknown", "Name", "backendRef", "apiVersion", "a.b", "", "metadata", "spec"))
        value = copy.deepcopy(self.random.choice(ODD_VALUES))
        site.container[site.key][key] = value
        return f"{site.path}.{key} = {value!r}"

    def _rename(self, site: Site) -> str:
        struct = site.container[site.key]
        if not struct:
            return self._unknown_field(site)
        key = self.random.choice(sorted(struct))
        other = self.random.choice((key.upper(), key + "s", key[:-1], key.capitalize()))
        struct[other] = struct.pop(key)
        return f"{site.path}.{key} renamed to {other}"

    # --- lists ---

    def _repeat(self, site: Site) -> str:
        items = site.container[site.key]
        if not items:
            return self._grow(site)
        item = copy.deepcopy(self.random.choice(items))
        told = ""
        if isinstance(item, dict) and item and self.random.random() < 0.5:
            key = self.random.choice(sorted(item))
            del item[key]
            told = f" without {key}"
        items.insert(self.random.randrange(len(items) + 1), item)
        return f"{site.path} has an item twice{told}"

    def _grow(self, site: Site) -> str:
        assert isinstance(site.spec, ItemsSpec)
        item = self.generator.value(site.spec.items, self.random.choice((0.2, 0.6)), 3)
        site.container[site.key].append(item)
        return f"{site.path} += {_short(item)}"

    def _fill_up(self, site: Site) -> str:
        assert isinstance(site.spec, ItemsSpec)
        limit = site.spec.constraint.max_items
        if limit is None:
            return self._repeat(site)
        items = site.container[site.key]
        wanted = limit + self.random.choice((0, 0, 1))
        seed = items[0] if items else self.generator.value(site.spec.items, 0.1, 5)
        while len(items) < wanted:
            items.append(_numbered(copy.deepcopy(seed), len(items)))
        return f"{site.path} filled up to {len(items)} items"

    def _odd_item(self, site: Site) -> str:
        items = site.container[site.key]
        item = copy.deepcopy(self.random.choice(ODD_VALUES))
        items.insert(self.random.randrange(len(items) + 1), item)
        return f"{site.path} += {item!r}"

    # --- mappings ---

    def _odd_key(self, site: Site) -> str:
        key = self.random.choice(STRINGS)
        if self.random.random() < 0.3:
            prefix = self.random.choice(("a." * 126, "x" * 252, "x" * 253, "a.b", "A.b", "", "x" * 64, "a_b"))
            key = f"{prefix}/{self.random.choice(('a', 'A_b.c', 'x' * 63, 'x' * 64, '', '-a'))}"
        site.container[site.key][key] = "a"
        return f"{site.path}[{_short(key)}] = 'a'"

    def _odd_entry(self, site: Site) -> str:
        value = copy.deepcopy(self.random.choice(ODD_VALUES))
        site.container[site.key]["odd"] = value
        return f"{site.path}['odd'] = {value!r}"

    def _fill_map(self, site: Site) -> str:
        assert isinstance(site.spec, MapSpec)
        mapping = site.container[site.key]
        wanted = (site.spec.constraint.max_properties or 3) + self.random.choice((0, 0, 1))
        while len(mapping) < wanted:
            mapping[f"k{len(mapping)}"] = "a"
        return f"{site.path} filled up to {len(mapping)} entries"


def sweep(document: Object, part: str, done: set[str]) -> Iterator[Change]:
    """The document with each scalar in turn replaced by every value that may tell something.

    A field that occurs several times is looked at once; `done` says which ones were, and grows.
    """
    for site in list(_sites(document, part)):
        place = re.sub(r"\[[^\]]*\]", "[]", site.path)
        if not isinstance(site.spec, ScalarSpec) or place in done:
            continue
        done.add(place)
        before = site.container[site.key]
        for value in telling_scalars(site.spec, site.name):
            site.container[site.key] = value
            yield Change(copy.deepcopy(document), f"{site.path} = {_short(value)}")
        site.container[site.key] = before


def _numbered(item: Any, number: int) -> Any:
    """A copy that differs from the others, as far as a name, port or text can tell."""
    if isinstance(item, str):
        return f"{item[:200]}{number}"
    if isinstance(item, dict):
        for key in ("name", "type"):
            if isinstance(item.get(key), str) and (key == "name" or "status" in item):
                item[key] = f"{item[key][:40]}{number}"
        if isinstance(item.get("port"), int):
            item["port"] = number + 1
    return item


def _sites(document: Object, part: str) -> Iterator[Site]:
    info = api.by_kind(api.group_of(document["apiVersion"]), document["kind"])
    assert info is not None
    spec = struct_spec(info.schema(document["apiVersion"].rpartition("/")[2]))
    if part in document:
        yield from _below(Site(document, part, spec.fields[part].type, part))


def _below(site: Site) -> Iterator[Site]:
    yield site
    value = site.container[site.key]
    match site.spec:
        case StructSpec() if isinstance(value, dict):
            for key in value:
                if key in site.spec.fields:
                    yield from _below(Site(value, key, site.spec.fields[key].type, f"{site.path}.{key}"))
        case ItemsSpec() if isinstance(value, list):
            for index in range(len(value)):
                yield from _below(Site(value, index, site.spec.items, f"{site.path}[{index}]"))
        case MapSpec() if isinstance(value, dict):
            for key in value:
                yield from _below(Site(value, key, site.spec.values, f'{site.path}["{key}"]'))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:100]}… ({len(text)} characters)"
