"""Objects without a process: read, related to each other, and asked about. Nothing is started, bound or kept."""

import ipaddress
import tempfile
from collections.abc import Callable, Mapping
from functools import cached_property
from itertools import starmap
from pathlib import Path
from typing import Any

import msgspec

from propylon import api
from propylon.app.addresses import assign, plan_addresses
from propylon.app.configuration import UpOptions, default_data_dir, merge_options, read_file_options
from propylon.app.dev_certificates import Wanted, build_wanted, plan_dev_certificates
from propylon.app.documents import secret_document
from propylon.certificates.local_authority import LocalAuthority
from propylon.explain import Explanation, Request, explain
from propylon.explain import Settings as ExplainSettings
from propylon.graph import GatewayAddresses, Settings, Sources, build_graph
from propylon.graph.model import BackendKey, Endpoint, Finding
from propylon.incremental import Collection, Engine, Source
from propylon.status import PortProgrammed, build_status
from propylon.store.files import FileProblem, FileSource, Severity

_BLOCK = ipaddress.IPv4Network("127.64.0.0/24")
"""Gateways that ask for no address get one of these, so that they can be told apart."""


class Snapshot:
    """Objects of one moment as a Graph that nobody serves. Every address that a Gateway asks for counts as there."""

    def __init__(self, documents: Mapping[api.ObjectRef, Mapping[str, Any]], options: UpOptions) -> None:
        """Relate the documents to each other. Never raises for what is in them: see `undecodable`."""
        self.options = options
        self.documents = documents
        self.undecodable: list[tuple[api.ObjectRef, api.DecodeError]] = []
        self.engine = Engine()
        self.sources = Sources.create(self.engine)
        controllers = frozenset(options.controllers) if options.controllers else None
        self.graph = build_graph(self.engine, self.sources, Settings(controllers=controllers))
        for ref, document in documents.items():
            self._take(ref, document)
        for override in options.backends:
            key = BackendKey("Service", override.namespace, override.service, override.port)
            self.sources.endpoint_overrides.set(key, (Endpoint(override.host, override.host_port),))
        self.engine.commit()
        self._place_gateways()
        if options.dev_certs:
            self.issue(lambda _secret: True)

    @property
    def endpoints_known(self) -> bool:
        """Whether there are EndpointSlices: without any, Services count as having endpoints."""
        return any(True for _ in self.sources.endpoint_slices)

    def explain(self, request: Request | str, *, candidates: int = 20) -> Explanation:
        """What happens to a request under these objects, and why.

        Services without EndpointSlices count as having endpoints: pods are in no manifest. Raises
        propylon.explain.ExplainError if the question cannot be answered as it was put.
        """
        asked = Request(request) if isinstance(request, str) else request
        return explain(self.graph, asked, self.settings(candidates))

    def settings(self, candidates: int = 20) -> ExplainSettings:
        """What an explanation needs beside the Graph."""
        return ExplainSettings(
            locate=self.locate,
            endpoints_known=self.endpoints_known,
            trusted_hops=self.options.trusted_hops,
            candidates=candidates,
        )

    def locate(self, ref: api.ObjectRef, field: str) -> tuple[str, int, int]:
        """File, line and column of a field; ("", 0, 0) for objects that came from no file."""
        del ref, field
        return "", 0, 0

    @cached_property
    def statuses(self) -> Mapping[api.ObjectRef, Any]:
        """The status of every object; `Programmed` as if every proxy had acknowledged what it was given."""
        programmed: Source[Any, PortProgrammed] = self.engine.source("programmed")
        rejections: Source[api.ObjectRef, tuple[Finding, ...]] = self.engine.source("rejections")
        built = build_status(self.engine, self.sources, self.graph, programmed, rejections)
        for key in self.graph.ports.snapshot():
            programmed.set(key, PortProgrammed("Programmed"))
        self.engine.commit()
        return built.statuses.snapshot()

    @cached_property
    def _wanted(self) -> Collection[api.ObjectKey, Wanted]:
        wanted = build_wanted(self.engine, self.sources, self.graph)
        self.engine.commit()
        return wanted

    def _take(self, ref: api.ObjectRef, document: Mapping[str, Any]) -> None:
        source = self.sources.by_kind(ref.group, ref.kind)
        if source is None:
            return
        try:
            source.set(ref.key, api.decode(api.apply_defaults({k: v for k, v in document.items() if k != "status"})))
        except api.DecodeError as error:
            self.undecodable.append((ref, error))

    def _place_gateways(self) -> None:
        plan = plan_addresses(iter(self.sources.gateways), {}, _BLOCK)
        for key, gateway in self.sources.gateways.items():
            placed = self._addresses_there_are(key) or assign(gateway, plan, self.options.port_offset, _is_address)
            self.sources.addresses.set(key, placed)
        self.engine.commit()

    def _addresses_there_are(self, key: api.ObjectKey) -> GatewayAddresses | None:
        """Those that the Gateway's status has, of objects that somebody serves already."""
        document = self.documents.get(api.ObjectRef(api.GATEWAY_GROUP, "Gateway", *key)) or {}
        status = document.get("status") or {}
        found = tuple(
            str(each["value"])
            for each in status.get("addresses") or ()
            if each.get("type", "IPAddress") == "IPAddress" and _is_address(str(each.get("value")))
        )
        if not found:
            return None
        known = tuple(api.GatewayStatusAddress(type="IPAddress", value=value) for value in found)
        return GatewayAddresses(known, found, self.options.port_offset)

    def issue(self, which: Callable[[api.ObjectKey], bool]) -> tuple[api.ObjectKey, ...]:
        """Make the Secrets that listeners name and that do not exist, as far as `which` takes them; tell which ones."""
        due = [
            w
            for w in plan_dev_certificates(self._wanted.snapshot().values(), self.sources.secrets.get)
            if which(w.secret)
        ]
        if due:
            with tempfile.TemporaryDirectory(prefix="propylon-") as directory:
                authority = LocalAuthority(Path(directory))
                for each in due:
                    document = secret_document(each, *authority.issue(each.dns_names, each.ip_addresses))
                    self.sources.secrets.set(each.secret, api.decode(api.apply_defaults(document)))
            self.engine.commit()
        return tuple(each.secret for each in due)


class Manifests(Snapshot):
    """The objects of some directories and files."""

    def __init__(self, options: UpOptions, shown: tuple[str, str] = ("", "")) -> None:
        """Read and relate. Never raises for what is in the manifests: see `problems`.

        `shown`: how the names of files begin, and what people are shown in place of that.
        """
        self._shown = shown
        self.source = FileSource(options.paths, variables=options.variables, variable_files=options.variable_files)
        self.loaded = self.source.load()
        super().__init__({ref: item.document for ref, item in self.loaded.objects.items()}, options)
        problems = [*self.loaded.problems, *starmap(self._undecodable, self.undecodable)]
        self.problems = [msgspec.structs.replace(p, file=self._show(p.file)) for p in problems]

    @property
    def errors(self) -> list[FileProblem]:
        """What could not be loaded."""
        return [problem for problem in self.problems if problem.severity is Severity.ERROR]

    def locate(self, ref: api.ObjectRef, field: str) -> tuple[str, int, int]:
        """Where a field of an object is written."""
        file, line, column = self.source.locate(ref, field)
        return self._show(file), line, column

    def _show(self, file: str) -> str:
        begin, instead = self._shown
        return instead + file.removeprefix(begin) if begin and file.startswith(begin) else file

    def _undecodable(self, ref: api.ObjectRef, error: api.DecodeError) -> FileProblem:
        file, line, column = self.source.locate(ref, error.field)
        return FileProblem(
            file, line, column, Severity.ERROR, str(error), object=str(ref), field=error.field, code="undecodable"
        )


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
    return Manifests(options_of(*paths, **options))


def options_of(*paths: str | Path, **options: Any) -> UpOptions:
    """What `load` reads by. Raises ConfigurationError, FileNotFoundError."""
    texts = tuple(str(path) for path in paths)
    missing = next((text for text in texts if text != "-" and not Path(text).exists()), None)
    if missing is not None:
        raise FileNotFoundError(f"{missing} does not exist")
    given = {"data_dir": default_data_dir(), **options, "paths": texts}
    return merge_options(given, read_file_options(texts))


def as_document(explanation: Explanation) -> dict[str, Any]:
    """The JSON form (docs/reference/explain.md)."""
    document: dict[str, Any] = msgspec.to_builtins(explanation)
    return {**document, "well": explanation.well}
