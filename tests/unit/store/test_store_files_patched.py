"""A load that only looks at changed files gives what a load of everything gives, and names all that differs."""

import random

import pytest

from propylon.store.files import FileSource, reader
from propylon.store.files.apply import plan
from propylon.store.protocol import AppliedDocument

NAMES = ("a", "b", "c", "d")


def config_map(name, value):
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{value: '{value}'}}\n"


def content(chooser, stem, trouble=0.05):
    names = [f"{stem}{number}" for number in range(3) if chooser.random() < 0.7]
    if chooser.random() < 2 * trouble:
        names.append("shared")
    documents = [config_map(name, chooser.randrange(9)) for name in names]
    if chooser.random() < trouble:
        documents.append("kind: [broken")
    if chooser.random() < trouble:
        documents.append("apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: 3}\n")
    return "---\n".join(documents)


@pytest.mark.parametrize("seed", range(12))
def test_what_is_patched_equals_what_is_read_anew(tmp_path, seed):
    chooser = random.Random(seed)
    source = FileSource([str(tmp_path)])
    before = source.load()
    patched = 0
    for _ in range(30):
        file = tmp_path / f"{chooser.choice(NAMES)}.yaml"
        if chooser.random() < 0.15:
            file.unlink(missing_ok=True)
        else:
            file.write_text(content(chooser, file.stem), encoding="utf-8")
        now = source.load()
        source._merged = None  # have it look at everything
        whole = source.load()
        differing = {ref for ref in {*before.objects, *now.objects} if before.objects.get(ref) != now.objects.get(ref)}
        assert whole.changed is None
        assert dict(now.objects) == dict(whole.objects)
        if now.changed is not None:
            patched += 1
            assert differing <= now.changed
        applied = {ref: AppliedDocument(item.document, str(item.origin)) for ref, item in before.objects.items()}
        partly, wholly = (plan(applied, now, everything=False, in_step=in_step) for in_step in (True, False))
        assert {item.ref for item in partly.apply} == {item.ref for item in wholly.apply}
        assert set(partly.prune) == set(wholly.prune)
        before = now
    assert patched > 3


@pytest.mark.parametrize("seed", range(12))
def test_what_was_told_gives_what_is_read_anew(tmp_path, seed):
    chooser = random.Random(seed)
    (tmp_path / "kustomized").mkdir()
    (tmp_path / "kustomized" / "kustomization.yaml").write_text("resources: [part.yaml]", encoding="utf-8")
    source = FileSource([str(tmp_path)])
    before = source.load()
    quick = 0
    for _ in range(40):
        files = [tmp_path / f"{name}.yaml" for name in chooser.sample(NAMES, chooser.choice((1, 1, 2)))]
        if chooser.random() < 0.1:
            files = [tmp_path / "kustomized" / "part.yaml"]
        for file in files:
            if chooser.random() < 0.15:
                file.unlink(missing_ok=True)
            else:
                file.write_text(content(chooser, file.stem, 0.02), encoding="utf-8")
        objects = dict(before.objects)
        now = source.load({*map(str, files), str(tmp_path / ".x.yaml.swp")})
        quick += now.watched is before.watched
        whole = FileSource([str(tmp_path)]).load()
        # What is broken or refused keeps what it said before, which a new reader does not know.
        if whole.complete and not whole.held and not whole.held_files:
            assert dict(now.objects) == dict(whole.objects)
            assert set(now.problems) == set(whole.problems)
            assert (now.complete, now.held_files, now.watched) == (True, frozenset(), whole.watched)
        differing = {ref for ref in {*objects, *now.objects} if objects.get(ref) != now.objects.get(ref)}
        assert now.changed is None or differing <= now.changed
        before = now
    assert quick > 3


@pytest.mark.parametrize("told", ["..data", "new.yaml", "vars.env", "link.yaml"])
def test_what_may_mean_more_has_everything_looked_at(tmp_path, told):
    (tmp_path / "a.yaml").write_text(config_map("a", "${VALUE:-1}"), encoding="utf-8")
    (tmp_path / "b.yaml").write_text(config_map("b", "1"), encoding="utf-8")
    source = FileSource([str(tmp_path)])
    source.load()
    (tmp_path / "a.yaml").write_text(config_map("a", "2"), encoding="utf-8")
    loaded = source.load([str(tmp_path / "b.yaml"), str(tmp_path / told)])
    found = {ref.name: item.document["data"]["value"] for ref, item in loaded.objects.items()}
    assert found == {"a": "2", "b": "1"}


def test_places_in_several_files_are_found_once(tmp_path, monkeypatch):
    composed = []

    class Counted(reader.Positions):
        def __init__(self, text):
            composed.append(text)
            super().__init__(text)

    monkeypatch.setattr(reader, "Positions", Counted)
    for name in NAMES:
        (tmp_path / f"{name}.yaml").write_text(config_map(name, 1), encoding="utf-8")
    source = FileSource([str(tmp_path)])
    refs = list(source.load().objects)
    places = [source.locate(ref, "data.value") for ref in refs for _ in range(3)]
    again = [source.locate(ref, "data.value") for ref in reversed(refs)]
    assert {line for _, line, _ in places} == {4}
    assert len(again) == len(composed) == len(NAMES)
    monkeypatch.setattr(reader, "POSITIONS_BYTES", 10)
    assert [source.locate(ref, "data.value")[1] for ref in refs] == [4] * len(refs)
    assert len(source._reader._positions) == 1
