"""The half of the process that needs no proxy: store, files, addresses, development certificates."""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from propylon import api
from propylon.app.addresses import AddressFile, assign, loopback_block, machine_has, parse_pool, plan_addresses
from propylon.app.configuration import BackendOverride, UpOptions
from propylon.app.controller import Controller, Node, Outcome, ResourceName, describe
from propylon.app.dev_certificates import Wanted, build_wanted, plan_dev_certificates
from propylon.app.documents import secret_document
from propylon.app.problems import Problems
from propylon.app.reading_order import in_reading_order
from propylon.app.report import Problem, build_report
from propylon.app.unsupported import decoded_without_effect
from propylon.certificates.local_authority import LocalAuthority
from propylon.envoy import EnvoySettings
from propylon.graph import Settings
from propylon.graph.model import BackendKey, Endpoint
from propylon.server.machine import MachineStore
from propylon.store import Gone, StoreUnavailable
from propylon.store.files import FileChange, FileProblem, FilesController, FileSource, Severity

log = logging.getLogger("propylon")

LARGE = 1_500
"""Objects that a store may hold to be read at once."""

PART = 750
"""Objects that are read before the loop does something else, when there are many at the start: some 50 ms."""


class Workspace:
    """Objects come in from the store, files through the store; `turn` computes what follows from them."""

    def __init__(
        self, options: UpOptions, directory: Path, say: Callable[[str], None], store: MachineStore | None = None
    ) -> None:
        """Open the store in `directory`, unless it is given. Raises StoreError, AuthorityError."""
        self.options = options
        directory.mkdir(parents=True, exist_ok=True)
        self.store = store or MachineStore(directory)
        self.controller = Controller(
            Settings(controllers=frozenset(options.controllers) if options.controllers else None),
            EnvoySettings(
                access_log=options.access_log,
                backend_statistics=options.backend_statistics,
                trusted_hops=options.trusted_hops,
            ),
        )
        self.manifests = FileSource(options.paths, variables=options.variables, variable_files=options.variable_files)
        self.files = FilesController(
            self.store, self.manifests, on_change=self._say_change, on_problems=self._take_file_problems
        )
        self.problems = Problems(self.manifests.locate)
        self.authority = LocalAuthority(directory / "authority") if options.dev_certs else None
        if self.authority is not None:
            controller = self.controller
            self._wanted = build_wanted(controller.engine, controller.sources, controller.graph)
            observe = controller.engine.observe
            self._certificate_inputs = (observe(self._wanted), observe(controller.sources.secrets))
        self.statuses: dict[api.ObjectRef, Any] = {}
        self._say = say
        self.controller.engine.trace = options.trace
        self.ring: Callable[[], None] = lambda: None
        """Called, from any thread, when there is something that the store does not tell."""
        self.store_problems: tuple[Problem, ...] = ()
        """Why a development certificate could not be stored; it is tried again in the next turn."""
        self.file_reports: tuple[FileProblem, ...] = ()
        """Everything that there is to say about the manifest files, notices too."""
        self._file_problems: tuple[FileProblem, ...] = ()
        self._told_file_reports: tuple[FileProblem, ...] = ()
        """What `problems` was last told of, the very tuple."""
        self.notices: tuple[str, ...] = ()
        """What is worth knowing about the manifests and is not wrong."""
        self._pools = tuple(map(parse_pool, options.address_pools))
        self._address_file = AddressFile(directory / ("pooled-addresses.json" if self._pools else "addresses.json"))
        self._addresses = self._address_file.read()
        self._block = loopback_block(directory)
        self._version: int | None = None
        self._own_versions: set[int] = set()
        self._undecodable: dict[api.ObjectRef, Problem] = {}
        self._gateways_to_place: dict[api.ObjectKey, api.Gateway | None] = {}
        for override in options.backends:
            self.controller.sources.endpoint_overrides.set(*_override(override))

    @property
    def has_news(self) -> bool:
        """Whether a turn would find anything: in the store, in the files, or in what is computed from both."""
        return (
            self._version != self.store.resource_version
            or self._version is None
            or bool(self._gateways_to_place)
            or bool(self.store_problems)
            or self.file_reports is not self._told_file_reports
            or self.controller.engine.has_work
        )

    def turn(self) -> Outcome:
        """Bring in what the store has new, and compute."""
        self._take_changes()
        self._place_gateways()
        outcome = self.compute()
        if self.authority is not None:
            self._issue_certificates(self.authority)
        if self.file_reports is not self._told_file_reports:
            self._told_file_reports = self.file_reports
            self.problems.set_others("files", map(_of_file, self._file_problems))
        self.problems.set_others("objects", self._undecodable.values())
        return outcome

    def advance(self) -> Iterator[dict[Node, dict[ResourceName, bytes | None]]]:
        """Read the store in parts before the first turn, and return after each what proxies can be told already.

        A part is at most `PART` objects; Gateways come first, and without what they serve. Where there is little, the
        turn is left to do it all. Raises StoreUnavailable.
        """
        listing = self.store.list()
        if len(listing.refs) <= LARGE:
            return
        for objects in in_reading_order(zip(listing.refs, listing.raw, strict=True)):
            for part in (objects[i : i + PART] for i in range(0, len(objects), PART)):
                for ref, raw in part:
                    self._take(ref, raw)
                self._place_gateways()
                yield self.controller.advance()
        self._version = listing.resource_version

    def compute(self) -> Outcome:
        """Run one batch over what was taken in so far."""
        outcome = self.controller.commit()
        for line in outcome.explanation.splitlines():
            self._say(f"trace: {line}")
        for name, key, error in outcome.failures:
            log.error("a computation failed: collection=%s key=%s", name, key, exc_info=error)
        for ref, status in outcome.statuses.items():
            if status is None:
                self.statuses.pop(ref, None)
            else:
                self.statuses[ref] = status
        for (origin, ref), findings in outcome.findings.items():
            self.problems.set_findings(origin, ref, findings)
        return outcome

    def report(self) -> dict[str, Any]:
        """The object that `propylon status -o json` prints."""
        return build_report(
            self.controller.graph,
            self.statuses,
            self.problems.all(),
            self.notices,
        )

    # -- manifests (called from the thread that reads them) -----------------------------------------------------------

    def _say_change(self, change: FileChange) -> None:
        self._say(str(change))

    def _take_file_problems(self, problems: tuple[FileProblem, ...]) -> None:
        self._file_problems = tuple(p for p in problems if p.severity is not Severity.NOTICE)
        self.notices = tuple(str(p) for p in problems if p.severity is Severity.NOTICE)
        self.file_reports = problems  # the last, as the loop looks at it to find out whether there is anything new
        self.ring()

    # -- objects -----------------------------------------------------------------------------------------------------

    def note_written(self, versions: Sequence[int]) -> bool:
        """Say that these versions of objects are ones that we made by writing their status: they bring nothing new.

        Returns whether there is nothing else that is new either.
        """
        if self._version is not None and self.store.resource_version == self._version + len(versions):
            self._version += len(versions)  # each change takes one: these are all that there are
            return True
        self._own_versions.update(versions)
        return False

    def _take_changes(self) -> None:
        if self._version is not None:
            if self._version == self.store.resource_version:
                return
            try:
                changes = self.store.changes_since(self._version)
            except Gone:
                log.warning("the change log was shorter than what happened; reading everything again")
            else:
                self._version = changes.resource_version
                own, self._own_versions = self._own_versions, set()
                for event in changes.events:
                    if event.resource_version not in own:
                        self._take(event.ref, None if event.type == "DELETED" else event.raw)
                self._own_versions = {version for version in own if version > self._version}
                return
        listing = self.store.list()
        self._version = listing.resource_version
        for ref in self.controller.refs() - set(listing.refs):
            self._take(ref, None)
        for ref, raw in zip(listing.refs, listing.raw, strict=True):
            self._take(ref, raw)

    def _take(self, ref: api.ObjectRef, raw: bytes | None) -> None:
        self._undecodable.pop(ref, None)
        try:
            decoded = self.controller.set_document(ref, raw)
        except api.DecodeError as error:
            file, line, column = self.manifests.locate(ref, error.field)
            self._undecodable[ref] = Problem("error", file, line, column, describe(ref), error.field, str(error))
            return
        self.problems.set_findings("unsupported", ref, () if raw is None else decoded_without_effect(ref, decoded))
        if ref.kind == "Gateway" and ref.group == api.GATEWAY_GROUP:
            self._gateways_to_place[api.ObjectKey(ref.namespace, ref.name)] = decoded

    # -- addresses ---------------------------------------------------------------------------------------------------

    def _place_gateways(self) -> None:
        """Give addresses to the Gateways that came or changed."""
        if not self._gateways_to_place:
            return
        sources = self.controller.sources
        pending, self._gateways_to_place = self._gateways_to_place, {}
        living = (k for k, g in pending.items() if g is not None)
        plan = plan_addresses(living, self._addresses, self._block, self._pools)
        if plan != self._addresses:
            self._addresses = plan
            try:
                self._address_file.write(plan)
            except OSError as error:
                log.error("addresses cannot be remembered: %s", error)
        for key, gateway in pending.items():
            if gateway is None:
                sources.addresses.remove(key)
            else:
                sources.addresses.set(key, assign(gateway, plan, self.options.port_offset, machine_has))

    # -- development certificates ------------------------------------------------------------------------------------

    def _issue_certificates(self, authority: LocalAuthority) -> None:
        changed = [observation for observation in self._certificate_inputs if observation.take()]
        if not changed and not self.store_problems:
            return
        self.store_problems = ()
        secrets = self.controller.sources.secrets
        due = plan_dev_certificates(self._wanted.snapshot().values(), secrets.get)
        if due:
            documents = [self._issue(authority, wanted) for wanted in due]
            try:
                self.store.apply_many(documents, "dev-certs", create_namespace=True)
            except StoreUnavailable as error:
                self.store_problems = (store_problem(self.options.data_dir, error),)

    @staticmethod
    def _issue(authority: LocalAuthority, wanted: Wanted) -> dict[str, Any]:
        chain, key = authority.issue(wanted.dns_names, wanted.ip_addresses)
        return secret_document(wanted, chain, key)


def _override(override: BackendOverride) -> tuple[BackendKey, tuple[Endpoint, ...]]:
    key = BackendKey("Service", override.namespace, override.service, override.port)
    return key, (Endpoint(override.host, override.host_port),)


def store_problem(data_dir: Path, error: StoreUnavailable) -> Problem:
    """The store cannot be read or written at present."""
    return Problem("error", str(data_dir), 0, 0, "", "", error.message, error.remedy)


def _of_file(problem: FileProblem) -> Problem:
    return Problem(
        severity="error" if problem.severity is Severity.ERROR else "warning",
        file=problem.file,
        line=problem.line,
        column=problem.column,
        object=problem.object,
        field=problem.field,
        message=problem.message,
        remedy=problem.remedy,
    )
