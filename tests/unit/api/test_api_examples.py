"""The examples that ship with Gateway API: the good ones pass, the bad ones do not."""

import zipfile

import yaml

from conftest import MODULE
from propylon import api

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def documents(archive: zipfile.ZipFile, folder: str) -> list[tuple[str, dict]]:
    prefix = f"{MODULE}/{folder}/"
    return [
        (name.removeprefix(prefix), document)
        for name in sorted(archive.namelist())
        if name.startswith(prefix) and name.endswith(".yaml")
        for document in yaml.load_all(archive.read(name), Loader=LOADER)
        if document
    ]


def test_official_examples_have_no_findings(gateway_api: zipfile.ZipFile) -> None:
    checked = 0
    for channel in ("standard", "experimental"):
        for name, document in documents(gateway_api, f"examples/{channel}"):
            findings = api.validate(document, channel=channel)
            errors = [str(finding) for finding in findings if finding.severity == "error"]
            assert errors == [], name
            if (info := api.by_kind(api.group_of(document["apiVersion"]), document["kind"])) is not None:
                checked += 1
                obj = api.decode(api.apply_defaults(document))
                assert type(obj) is info.type
                assert api.decode(document) == obj, name
    assert checked > 100


def test_official_invalid_examples_have_errors(gateway_api: zipfile.ZipFile) -> None:
    found: dict[str, set[str]] = {}
    for channel in ("standard", "experimental"):
        for name, document in documents(gateway_api, f"hack/invalid-examples/{channel}"):
            findings = api.validate(document, channel=channel)
            found.setdefault(name, set()).update(f"{f.code} {f.field}" for f in findings if f.severity == "error")
    assert len(found) > 30
    assert [name for name, errors in found.items() if not errors] == []
