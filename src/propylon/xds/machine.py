"""One stream of delta xDS as a pure machine: requests and desired changes go in, responses and events come out.

It keeps at most one response per type in flight. That coalesces what a slow proxy has not asked for yet, bounds memory,
and makes a rejection attributable. Protocol: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol
(incremental).

Make before break, without reading the resources: every update of the world has a number, its epoch. A change of a type
that refers to others (listeners, routes) waits for the changes of referred types (clusters, endpoints, secrets) of the
same or an earlier epoch; a removal waits for every change of its epoch, and for the removals of the types that refer to
its own. What a proxy did not subscribe to or has refused is not waited for.

A proxy that has nothing yet, as after a hot restart, gets all clusters before it gets anything that refers to them. A
Listener begins to serve with the first response about scopes, whatever that holds, or at once if another one has some
already. So extensions, which Listeners wait for, come last: after every scope of the same or an earlier epoch, and
after every scope that the proxy lacked when it asked for them.

Filter chains are the exception: they are removed before the Listener changes that no longer names them. Told of the
removal, Envoy 1.40 drains the chain's connections; not told, it frees the chain under them and crashes at their next
request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count
from operator import attrgetter

from propylon.xds.events import ResourceName
from propylon.xds.messages import Outcome, Request, Response
from propylon.xds.refusals import mentioned, readable
from propylon.xds.scopes import distinguished
from propylon.xds.subscription import EVER, NEVER, NOTHING, Flight, Plan, Subscription
from propylon.xds.type_urls import CDS, ECDS, EDS, FCDS, LDS, SRDS, WILDCARD, is_made_first, removal_rank, send_rank
from propylon.xds.world import Resource, World

RESPONSE_BYTES = 2 * 1024 * 1024
"""A response is closed when its resources exceed this; a larger single resource travels alone."""

SCOPES_BYTES = 256 * 1024
"""The same for scopes. Envoy keeps the memory that it needed to read a response, some 9 times the size of that."""

APPLIED_IN_PART = {CDS: "Error adding/updating cluster(s)", LDS: "Error adding/updating listener(s)"}
"""How Envoy begins to refuse a response whose good resources it applied all the same, naming the others."""

_HAS_WORK = attrgetter("has_work")


class Stream:
    """The state of one proxy's stream over the world of its node."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.subscriptions: dict[str, Subscription] = {}
        """By type, in the order in which types are sent."""
        self._nonces = count(1)
        self._started = False
        self._may_remove = False
        self._was_reticent = world.is_reticent
        self._sent_early: set[str] = set()
        """Endpoints that clusters wait for which were sent before the proxy had named any endpoints."""

    # -- what comes in ------------------------------------------------------------------------------------------------

    def receive(self, request: Request) -> Outcome:
        """Take in a request: the answer to a response, a change of subscriptions, or both."""
        outcome = Outcome()
        subscription = self.subscriptions.get(request.type_url)
        is_first = subscription is None
        if subscription is None:
            subscription = Subscription(request.type_url, self.world.is_kept_back)
            known = (*self.subscriptions.values(), subscription)
            self.subscriptions = {s.type_url: s for s in sorted(known, key=lambda s: send_rank(s.type_url))}
        if request.nonce:
            flight = subscription.land(request.nonce)
            if flight is not None:
                if request.error is None:
                    if self.world.unrecorded:
                        answered = (*flight.resources, *flight.removed)
                        self.world.unrecorded.difference_update((request.type_url, name) for name in answered)
                    self._acknowledge(subscription, flight.resources, flight.removed, outcome)
                else:
                    self._refuse(subscription, flight, request.error, outcome)
        if is_first:
            subscription.acked.update(request.initial_versions)
            for type_url, name in self.world.unrecorded:
                if type_url == request.type_url:
                    subscription.acked.setdefault(name, "")
            if not request.subscribe and not request.unsubscribe:
                subscription.wildcard = request.type_url in WILDCARD
            subscription.is_blank = not subscription.acked
            if request.type_url == SRDS and subscription.is_blank:
                subscription.introduction = self.world.epoch
        self._subscribe(subscription, request.subscribe, is_first)
        if is_first and subscription.wildcard and not request.initial_versions:
            subscription.greeted = False
        if is_first and request.type_url == SRDS:
            self._suspect(subscription)
        self._unsubscribe(subscription, request.unsubscribe)
        if request.type_url == EDS:
            self._sent_early.clear()
        if is_first:
            self._recognize(subscription, outcome)
        return outcome

    def desire(self, touched: Iterable[ResourceName]) -> Outcome:
        """Take in that the world changed under these names."""
        outcome = Outcome()
        self._offer()
        subscriptions, world, epoch = self.subscriptions, self.world, self.world.epoch
        for type_url, name in touched:
            subscription = subscriptions.get(type_url)
            if subscription is None or not subscription.covers(name):
                continue
            subscription.rejected.pop(name, None)
            subscription.mark(name, epoch)
            if world.get(type_url, name) is None:
                subscription.gone[name] = epoch
            elif name in subscription.acked:
                self._recognize_one(subscription, name, outcome)
        return outcome

    def _offer(self) -> None:
        """Have on-demand resources sent unasked if that was not so before and is now."""
        was_reticent, self._was_reticent = self._was_reticent, self.world.is_reticent
        if was_reticent and not self._was_reticent:
            for type_url, name in self.world.on_demand:
                subscription = self.subscriptions.get(type_url)
                if subscription is not None and subscription.covers(name):
                    self._mark(subscription, name)

    def _subscribe(self, subscription: Subscription, names: Iterable[str], is_first: bool) -> None:
        for name in names:
            if name == "*":
                subscription.wildcard = True
                continue
            subscription.names.add(name)
            # Asked for again on the same stream, a resource must be sent again; a first request says what is there
            # already.
            if not (is_first and name in subscription.acked) or name in self._sent_early:
                subscription.demanded.add(name)
            self._mark(subscription, name)
        if subscription.wildcard and ("*" in names or is_first):
            for name in (*self.world.desired.get(subscription.type_url, ()), *subscription.acked):
                self._mark(subscription, name)

    def _unsubscribe(self, subscription: Subscription, names: Iterable[str]) -> None:
        if "*" in names:
            subscription.wildcard = False
            dropped = [name for name in subscription.acked if name not in subscription.names]
        else:
            dropped = []
        subscription.names.difference_update(names)
        for name in (*names, *dropped):
            if subscription.wildcard:
                # Still covered by the wildcard: the protocol asks for an answer that tells the client so.
                subscription.demanded.add(name)
                self._mark(subscription, name)
                continue
            subscription.acked.pop(name, None)
            subscription.rejected.pop(name, None)
            subscription.pending.pop(name, None)
            subscription.gone.pop(name, None)
            subscription.demanded.discard(name)

    def _mark(self, subscription: Subscription, name: str) -> None:
        """Have a name looked at because of what the proxy said. If it runs another version, it is behind since ever."""
        resource = self.world.get(subscription.type_url, name)
        if resource is None:
            subscription.gone[name] = self.world.epoch
        lacks = subscription.type_url == SRDS or (subscription.type_url == CDS and subscription.is_blank)
        known = subscription.acked.get(name)
        is_behind = resource is not None and (lacks if known is None else known != resource.version)
        subscription.mark(name, EVER if resource is None or is_behind else resource.epoch)

    def _suspect(self, subscription: Subscription) -> None:
        """Have scopes that a proxy lacks told anew if they may have been in a response that it refused earlier."""
        if subscription.is_blank and not any(type_url == SRDS for type_url, _ in self.world.rejected):
            return
        desired = self.world.desired.get(SRDS, {})
        subscription.half_taken.update(
            name
            for name in subscription.pending
            if name in desired and subscription.acked.get(name) != desired[name].version
        )

    def _recognize(self, subscription: Subscription, outcome: Outcome) -> None:
        for name in subscription.acked:
            self._recognize_one(subscription, name, outcome)

    def _recognize_one(self, subscription: Subscription, name: str, outcome: Outcome) -> None:
        """Tell at once if the proxy has the desired version already."""
        desired = self.world.get(subscription.type_url, name)
        if desired is not None and subscription.acked.get(name) == desired.version:
            outcome.acknowledged[subscription.type_url, name] = desired.version
            self.world.accept((subscription.type_url, name), desired)

    def allow_removals(self) -> None:
        """Say that the proxy had time to tell what it runs.

        A reconnecting proxy names its types one after the other: a cluster must not go before it is known which routes
        the proxy has, and that they were changed first.
        """
        self._may_remove = True

    def close(self) -> None:
        """Say that the stream ended. What was not answered may have been applied in part, without a version."""
        for type_url in APPLIED_IN_PART:
            subscription = self.subscriptions.get(type_url)
            for flight in subscription.flights() if subscription else ():
                self.world.unrecorded.update((type_url, name) for name in flight.resources)

    # -- answers ------------------------------------------------------------------------------------------------------

    def _acknowledge(
        self, subscription: Subscription, resources: Mapping[str, Resource], removed: Iterable[str], outcome: Outcome
    ) -> None:
        world, acked, half_taken = self.world, subscription.acked, subscription.half_taken
        wanted = world.desired.get(subscription.type_url, {})
        for name, resource in resources.items():
            key, version = resource.name, resource.version
            if subscription.takes(name):
                acked[name] = version
            half_taken.discard(name)
            outcome.acknowledged[key] = version
            desired = wanted.get(name)
            if desired is not None:
                world.accept(key, desired if desired.version == version else resource)
        for name in removed:
            subscription.acked.pop(name, None)
            outcome.acknowledged[subscription.type_url, name] = None

    def _refuse(self, subscription: Subscription, flight: Flight, message: str, outcome: Outcome) -> None:
        names = list(flight.resources)
        if subscription.type_url == SRDS:
            subscription.half_taken.update(names)
        if not names:
            # Nothing can be taken back or tried otherwise; sending it again would loop.
            for name in flight.removed:
                subscription.acked.pop(name, None)
            outcome.rejected.append((None, "", readable(message)))
            return
        if len(names) == 1:
            self._reject(subscription, names[0], flight.resources[names[0]], message, outcome)
            return
        named = mentioned(names, message)
        if named and message.startswith(APPLIED_IN_PART.get(subscription.type_url, "\0")):
            applied = {name: resource for name, resource in flight.resources.items() if name not in named}
            self._acknowledge(subscription, applied, (), outcome)
            self.world.unrecorded.update((subscription.type_url, name) for name in applied)
            # Applied, but Envoy does not count them among its versions: after a reconnect it would not name them, and
            # so could not be told that they are gone. Sent again, they are recorded and nothing else happens.
            groups: list[tuple[str, ...]] = [tuple(applied)] if applied else []
            if len(named) == 1:
                self._reject(subscription, named[0], flight.resources[named[0]], message, outcome)
            else:
                groups += [(name,) for name in named]
        elif named and len(named) < len(names):
            groups = [tuple(name for name in names if name not in named), *[(name,) for name in named]]
        else:
            middle = len(names) // 2
            groups = [tuple(names[:middle]), tuple(names[middle:])]
        for group in groups:
            subscription.demanded.update(name for name in group if subscription.covers(name))
        subscription.trials.extendleft(reversed(groups))
        subscription.trial_epoch = min(subscription.trial_epoch, flight.epoch)

    def _reject(
        self, subscription: Subscription, name: str, resource: Resource, message: str, outcome: Outcome
    ) -> None:
        key = (subscription.type_url, name)
        message = readable(message)
        subscription.rejected.setdefault(name, {})[resource.version] = message
        self.world.reject(key, resource.version, message)
        outcome.rejected.append((key, resource.version, message))
        # A proxy that has nothing under this name yet gets the last version that worked elsewhere.
        self._mark(subscription, name)

    # -- what goes out ------------------------------------------------------------------------------------------------

    def take(self) -> list[Response]:
        """Return the responses to send now; they are in flight from here on."""
        if not self._may_send():
            return self._take_ahead()
        if self.has_nothing_to_send:
            return []
        subscriptions = tuple(self.subscriptions.values())
        plans = {s.type_url: self._plan(s) if s.has_work else NOTHING for s in subscriptions}
        responses: list[Response] = []
        first = any_change = NEVER
        if any(plan.removals or (plan.changes and not is_made_first(name)) for name, plan in plans.items()):
            first = self._earliest(subscriptions, plans, is_first=True)
            any_change = min(first, self._earliest(subscriptions, plans, is_first=False))
        for subscription in subscriptions:
            plan = plans[subscription.type_url]
            if subscription.flight is not None or not subscription.has_work:
                continue
            limit = NEVER if is_made_first(subscription.type_url) else first
            if subscription.type_url == LDS:
                limit = min(limit, self._earliest_removal([s for s in subscriptions if s.type_url == FCDS], plans))
            if subscription.type_url == ECDS:
                scopes = self.subscriptions.get(SRDS)
                limit = min(limit, self._earliest([scopes], plans, is_first=False) if scopes is not None else EVER)
            response = self._respond(subscription, plan, limit)
            if response is None and plan.removals and self._may_remove:
                limit = first
                if subscription.type_url != FCDS:
                    rank = removal_rank(subscription.type_url)
                    before = [s for s in subscriptions if removal_rank(s.type_url) < rank]
                    limit = min(any_change, self._earliest_removal(before, plans))
                response = self._remove(subscription, plan, limit)
            if response is None and not subscription.greeted and not plan:
                # A starting Envoy waits for its clusters, then for its listeners, even if there are none.
                response = self._fly(subscription, {}, (), NEVER)
            if response is not None:
                subscription.greeted = True
                responses.append(response)
                if response.type_url == CDS:
                    self._demand_endpoints(response.resources.values(), plans)
        return responses

    def _take_ahead(self) -> list[Response]:
        """Before its world is complete, a proxy that has nothing is given what others will refer to: it serves nothing
        yet. One that has something keeps all of it, as what is missing here might only not be known yet.
        """
        responses: list[Response] = []
        for subscription in self._made_first():
            if not subscription.is_blank or subscription.flight is not None:
                continue
            response = self._respond(subscription, Plan(self._plan(subscription).changes), NEVER)
            if response is not None:
                subscription.greeted = True
                responses.append(response)
                if response.type_url == CDS:
                    self._demand_endpoints(response.resources.values(), {})
        return responses

    @property
    def settled(self) -> bool:
        """Whether nothing is left to be sent or answered.

        A proxy asks for listeners only when its clusters are warm; until then it has not come far enough to be settled.
        """
        if not self._may_send() or (LDS not in self.subscriptions and self.world.desired.get(LDS)):
            return False
        for s in self.subscriptions.values():
            if not s.greeted or s.flight or s.overtaken or s.trials or (s.has_work and self._plan(s)):
                return False
        return True

    @property
    def has_nothing_to_send(self) -> bool:
        """Whether `take` has nothing to look at, whatever is under way."""
        return not any(map(_HAS_WORK, self.subscriptions.values()))

    @property
    def awaited(self) -> Mapping[str, bool]:
        """The nonces of unanswered responses that changes of other types may wait for.

        True where an earlier response of the type is overdue already, so that there is little hope for this one.
        """
        return {s.flight.nonce: bool(s.overtaken) for s in self._made_first() if s.flight}

    def overtake(self, nonces: Iterable[str]) -> None:
        """Stop waiting for these responses.

        Envoy answers a cluster response only when its clusters are warm: that is what makes waiting for it worth while,
        but a cluster that does not get warm must not keep everybody else's routes, nor the change that repairs it, for
        ever.
        """
        for subscription in self._made_first():
            if subscription.flight is not None and subscription.flight.nonce in nonces:
                subscription.overtaken[subscription.flight.nonce] = subscription.flight
                subscription.flight = None

    def _made_first(self) -> list[Subscription]:
        return [s for s in self.subscriptions.values() if is_made_first(s.type_url)]

    def _demand_endpoints(self, clusters: Iterable[Resource], plans: dict[str, Plan]) -> None:
        """Have endpoints sent (again) that clusters just sent will wait for.

        Envoy warms a new or changed cluster until endpoints arrive after it, but does not ask for names it is
        subscribed to.
        """
        awaits = self.world.awaits
        names = {awaits(cluster.name[1], cluster.body) for cluster in clusters}
        subscription = self.subscriptions.get(EDS)
        if subscription is None:
            self._sent_early |= names
            return
        for name in sorted(names & subscription.names):
            subscription.demanded.add(name)
            self._mark(subscription, name)
        plans[EDS] = self._plan(subscription)

    def _may_send(self) -> bool:
        if not self.world.complete:
            return False
        if not self._started:
            self._started = True
            for subscription in self.subscriptions.values():
                for name in list(subscription.pending):
                    del subscription.pending[name]
                    self._mark(subscription, name)  # what was missing may be there now, and the other way round
        return True

    def _target(self, subscription: Subscription, name: str) -> Resource | bool | None:
        """Return the resource the proxy should have, None if none, or False if it should keep what it has."""
        key = (subscription.type_url, name)
        desired = self.world.get(*key)
        if desired is None:
            return None
        refused = subscription.rejected.get(name, {})
        if desired.version not in refused and self.world.rejected.get(key, ("", ""))[0] != desired.version:
            return desired
        good = self.world.good.get(key)
        if good is not None and good.version != desired.version and good.version not in refused:
            return good
        # Refused by another proxy only, and nothing better is known: this one may be luckier (a port that is free
        # here).
        return False if desired.version in refused else desired

    def _plan(self, subscription: Subscription) -> Plan:
        """Say what the pending names ask for, and forget those that ask for nothing.

        Of thousands of scopes that a new proxy lacks, as many as a response takes: nothing is older than these.
        """
        if not subscription.pending:
            subscription.introduction = None
            return NOTHING
        plan = Plan()
        idle: list[str] = []
        room = SCOPES_BYTES
        lacks = False
        type_url, demanded, acked = subscription.type_url, subscription.demanded, subscription.acked
        changes, has, covers = plan.changes, subscription.has, subscription.covers
        resources = self.world.desired.get(type_url, {})
        refused = self.world.rejected or subscription.rejected
        for name, epoch in subscription.pending.items():
            target: Resource | bool | None = False
            if covers(name):  # nothing is refused, as a rule
                target = self._target(subscription, name) if refused else resources.get(name)
            if target is None:
                if name in demanded and (name not in acked or type_url == EDS):
                    # At once, not after the changes: a cluster waits for it. Envoy keeps the endpoints it has.
                    plan.absent.append(name)
                    continue
                if name in acked:
                    plan.removals[name] = (subscription.gone.get(name, epoch), epoch)
                    continue
            elif isinstance(target, Resource) and (name in demanded or has(name) != target.version):
                changes[name] = (target, epoch if epoch < target.epoch else target.epoch)
                lacks = lacks or epoch == EVER
                if epoch == EVER and type_url == SRDS:
                    room -= len(target.body)
                    if room < 0:
                        break
                continue
            if not subscription.carries(name):
                idle.append(name)
        for name in idle:
            del subscription.pending[name]
            subscription.gone.pop(name, None)
        if not lacks:
            subscription.introduction = None
        return plan

    @staticmethod
    def _earliest(subscriptions: Iterable[Subscription], plans: Mapping[str, Plan], *, is_first: bool) -> float:
        """Return the earliest epoch of a change that is not acknowledged, among types made first or second."""
        earliest = NEVER
        for subscription in subscriptions:
            if is_made_first(subscription.type_url) is not is_first:
                continue
            flight = subscription.flight
            if flight is not None and not flight.is_removal:
                earliest = min(earliest, flight.epoch)
            if subscription.trials:
                earliest = min(earliest, subscription.trial_epoch)
            changes = plans[subscription.type_url].changes
            earliest = min(earliest, min((epoch for _, epoch in changes.values()), default=NEVER))
        return earliest

    @staticmethod
    def _earliest_removal(subscriptions: Iterable[Subscription], plans: Mapping[str, Plan]) -> float:
        """Return the earliest epoch of a removal that is not answered."""
        earliest = NEVER
        for subscription in subscriptions:
            flight = subscription.flight
            if flight is not None and flight.is_removal:
                earliest = min(earliest, flight.epoch)
            earliest = min(
                earliest, min((since for _, since in plans[subscription.type_url].removals.values()), default=NEVER)
            )
        return earliest

    def _respond(self, subscription: Subscription, plan: Plan, limit: float) -> Response | None:
        """Send what is older than `limit`: a trial group if there is one, else all that fits into a response."""
        while subscription.trials:
            group = subscription.trials.popleft()
            chosen: dict[str, Resource] = {}
            for name in group:
                target = self._target(subscription, name) if subscription.covers(name) else False
                if isinstance(target, Resource) and (
                    name in subscription.demanded or subscription.acked.get(name) != target.version
                ):
                    chosen[name] = target
            if chosen:
                return self._fly(subscription, chosen, (), subscription.trial_epoch)
        subscription.trial_epoch = NEVER
        chosen = {}
        size = 0
        most = SCOPES_BYTES if subscription.type_url == SRDS else RESPONSE_BYTES
        epoch: float = NEVER
        doubtful: dict[str, Resource] = {}
        for name, (resource, changed) in plan.changes.items():
            if self._is_early(subscription, resource, changed, limit):
                continue
            if subscription.type_url == SRDS and self._is_refused(subscription, name, resource):
                doubtful.setdefault(name, resource)
                continue
            if chosen and size + len(resource.body) > most:
                break
            chosen[name] = resource
            size += len(resource.body)
            epoch = min(epoch, changed)
        if not chosen and doubtful:
            name, resource = next(iter(doubtful.items()))
            chosen, epoch = {name: resource}, plan.changes[name][1]
        if not chosen and not plan.absent:
            return None
        return self._fly(subscription, chosen, tuple(plan.absent), epoch)

    @staticmethod
    def _is_early(subscription: Subscription, resource: Resource, changed: int, limit: float) -> bool:
        """Whether a change has to wait for what is older than `limit` and not there yet.

        What it refers to is what was there at its own epoch, however long an earlier version has been waiting. First
        scopes wait only for what was there when they were asked for: a proxy that does not serve yet must not wait for
        ever.
        """
        if changed == EVER and subscription.introduction is not None:
            return limit <= min(subscription.introduction, resource.epoch)
        return resource.epoch >= limit

    def _is_refused(self, subscription: Subscription, name: str, resource: Resource) -> bool:
        """Whether another proxy refused this, so that it travels alone: it would take others with it."""
        return self.world.rejected.get((subscription.type_url, name), ("", ""))[0] == resource.version

    def _remove(self, subscription: Subscription, plan: Plan, limit: float) -> Response | None:
        names = tuple(name for name, (epoch, _) in plan.removals.items() if epoch < limit)
        if not names:
            return None
        epoch = min(plan.removals[name][1] for name in names)
        return self._fly(subscription, {}, names, epoch, is_removal=True)

    def _fly(
        self,
        subscription: Subscription,
        resources: Mapping[str, Resource],
        removed: tuple[str, ...],
        epoch: float,
        *,
        is_removal: bool = False,
    ) -> Response:
        nonce = str(next(self._nonces))
        if subscription.half_taken:
            resources = {
                name: distinguished(resource) if name in subscription.half_taken else resource
                for name, resource in resources.items()
            }
        for name in (*resources, *removed):
            subscription.pending.pop(name, None)
            subscription.gone.pop(name, None)
            subscription.demanded.discard(name)
        subscription.flight = Flight(nonce, resources, removed, epoch, is_removal)
        return Response(subscription.type_url, nonce, resources, removed)
