"""Endpoints: registering, changing and removing them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from uplift_server.core import ids
from uplift_server.core.endpoint_settings import ENDPOINT_SETTINGS, EndpointSettings
from uplift_server.core.events.subscriptions import pattern_problems
from uplift_server.core.http.headers import MASKED, check_headers
from uplift_server.core.http.urls import with_lower_case_host
from uplift_server.core.limits import HELD_COUNTED_MAX, SECRET_KEY_BYTES_GENERATED
from uplift_server.core.people.audit import difference, without_query
from uplift_server.core.problems import Problem
from uplift_server.core.security.scopes import Scope
from uplift_server.core.security.signing import check_secret, generate_secret
from uplift_server.service.context import Listing, ServiceContext
from uplift_server.service.fields import UNSET, Unset, given, given_or, given_or_none
from uplift_server.service.idempotency import Repeat, check_repeat, request_of
from uplift_server.service.principals import Caller
from uplift_server.service.registration import Registrar
from uplift_server.service.registration_event import RegistrationEvents
from uplift_server.service.rejections import not_found, parse_id, refusal, refuse
from uplift_server.store import audit, endpoint_backlog, endpoints, health, idempotency
from uplift_server.store.contract import Transaction
from uplift_server.store.encryption import Cipher
from uplift_server.store.encryption_upgrade import must_bind
from uplift_server.store.errors import Conflict
from uplift_server.store.hot_records import NewEvent
from uplift_server.store.records import Attempt, Endpoint, EndpointFilter, EndpointState, Page

ALL: Final = EndpointFilter()
_WHAT: Final = "endpoint"
_FIELDS: Final = ("url", "description", "event_types")
_SETTING_NAMES: Final = tuple(each.name for each in ENDPOINT_SETTINGS)
_AUDITED: Final = (*_FIELDS, *_SETTING_NAMES)
"""The fields whose values the audit log shows. Header values are excluded: they may be secrets."""


@dataclass(frozen=True, slots=True)
class EndpointDraft:
    """What an owner says of an endpoint; on a change, what is not said stays, and None context the default."""

    url: str | Unset = UNSET
    description: str | Unset | None = UNSET
    event_types: Sequence[str] | Unset | None = UNSET
    secret: str | Unset | None = field(default=UNSET, repr=False)
    headers: Mapping[str, str] | Unset | None = field(default=UNSET, repr=False)
    settings: Mapping[str, int | None] = field(default_factory=dict)
    """The settings that the request contains, by name."""

    @classmethod
    def of_fields(cls, sent: Mapping[str, Any]) -> "EndpointDraft":
        """The draft in the fields of a request."""
        return cls(
            **{name: value for name, value in sent.items() if name not in _SETTING_NAMES},
            settings={name: sent[name] for name in _SETTING_NAMES if name in sent},
        )

    def normalized(self) -> "EndpointDraft":
        """The draft with its host name in lower case and without duplicate event types."""
        return replace(
            self,
            url=self.url if isinstance(self.url, Unset) else with_lower_case_host(self.url),
            event_types=tuple(dict.fromkeys(self.event_types))
            if isinstance(self.event_types, Sequence)
            else self.event_types,
        )

    def problems(self) -> list[Problem]:
        """What is wrong with it, as far as that can be seen from itself; its URL is the registrar's business."""
        found = []
        secret = given_or_none(self.secret)
        if secret is not None:
            found.append(check_secret(secret))
        headers = given_or_none(self.headers) or {}
        found.extend(check_headers(headers))
        found.extend(
            Problem(
                f"headers.{name}", "header_invalid", "This is how a value is shown, not one. Send the value itself."
            )
            for name, value in headers.items()
            if value == MASKED
        )
        return [problem for problem in found if problem is not None]


@dataclass(frozen=True, slots=True)
class Shown:
    """An endpoint as its owner may see it."""

    endpoint: Endpoint
    headers: dict[str, str] = field(repr=False)
    """Unmasked; the edge masks."""
    last_failure: Attempt | None
    """Of an endpoint that fails: the latest failed attempt, to explain it."""
    held_deliveries: int = 0
    """How many deliveries it holds, counted up to HELD_COUNTED_MAX."""
    next_probe_at: int | None = None
    """While its breaker is open (Unix ms)."""
    disable_at: int | None = None
    """While it fails: when it will be disabled (Unix ms)."""
    warn_at: int | None = None
    """While it fails, and its account's contacts were not told yet: when they will be (Unix ms)."""
    secret: str | None = field(default=None, repr=False)
    """Only in the answer to its creation."""
    repeated: bool = False


class Endpoints:
    """What owners do with endpoints."""

    def __init__(
        self, context: ServiceContext, cipher: Cipher, registrar: Registrar, greeter: RegistrationEvents
    ) -> None:
        self._context = context
        self._cipher = cipher
        self._registrar = registrar
        self._greeter = greeter

    async def create(
        self, caller: Caller, draft: EndpointDraft, *, repeat: Repeat | None = None, problems: Sequence[Problem] = ()
    ) -> Shown:
        """Register an endpoint; its secret is in the answer, unless this repeats an earlier request."""
        caller.require(Scope.ENDPOINTS_WRITE)
        account_seq = caller.one_account()
        refuse([*problems, *await self._problems(draft), *check_repeat(repeat)])
        return await self._context.carry_out(self._create(caller, account_seq, draft.normalized(), repeat))

    async def page(
        self,
        caller: Caller,
        listing: Listing,
        wanted: EndpointFilter = ALL,
        *,
        problems: Sequence[Problem] = (),
    ) -> Page[Shown]:
        """The account's endpoints, newest first."""
        caller.require(Scope.ENDPOINTS_READ)
        before = self._context.place(listing, 1, problems)
        found = await self._context.database.read(
            lambda c: endpoints.page(c, caller.account_seq, wanted, limit=listing.limit, before=before)
        )
        return Page(await self._all_shown(found.items), found.next_key)

    async def get(self, caller: Caller, endpoint: str) -> Shown:
        """One endpoint. Raises NotFound."""
        caller.require(Scope.ENDPOINTS_READ)
        endpoint_id = parse_id(ids.ENDPOINT, endpoint, _WHAT)
        found = await self._context.database.read(lambda c: endpoints.get(c, caller.account_seq, endpoint_id))
        if found is None:
            raise not_found(_WHAT, endpoint)
        return await self.shown(found)

    async def of_numbers(self, seqs: Sequence[int]) -> list[Shown]:
        """Endpoints that a service found in memory, in that order; without those that were deleted meanwhile."""
        found = await self._context.database.read(lambda c: endpoints.find(c, seqs))
        by_seq = {endpoint.seq: endpoint for endpoint in found}
        return await self._all_shown([by_seq[seq] for seq in seqs if seq in by_seq])

    async def update(
        self, caller: Caller, endpoint: str, draft: EndpointDraft, *, problems: Sequence[Problem] = ()
    ) -> Shown:
        """Change an endpoint; the change holds for the next attempt. Raises NotFound."""
        caller.require(Scope.ENDPOINTS_WRITE)
        self.live(caller, endpoint)
        refuse([*problems, *await self._problems(draft)])
        return await self.shown(await self._context.carry_out(self._update(caller, endpoint, draft.normalized())))

    async def delete(self, caller: Caller, endpoint: str) -> None:
        """Remove an endpoint; what is pending for it is cancelled. Raises NotFound."""
        caller.require(Scope.ENDPOINTS_WRITE)
        await self._context.carry_out(self._delete(caller, endpoint))

    def all(self, caller: Caller) -> list[Endpoint]:
        """Every endpoint of the caller's account as it stands in memory, newest first."""
        caller.require(Scope.ENDPOINTS_READ)
        live = self._context.cache.endpoints_of(caller.one_account())
        return sorted((each.record for each in live), key=lambda endpoint: endpoint.seq, reverse=True)

    def subscribed(self, caller: Caller, type_name: str) -> list[Endpoint]:
        """Those of them that want events of a type, newest first."""
        caller.require(Scope.ENDPOINTS_READ)
        live = self._context.cache.matches(caller.one_account(), type_name)
        return sorted((each.record for each in live), key=lambda endpoint: endpoint.seq, reverse=True)

    def live(self, caller: Caller, endpoint: str) -> Endpoint:
        """The caller's endpoint as it stands in memory. Raises NotFound."""
        found = self._context.cache.endpoints_by_id.get(parse_id(ids.ENDPOINT, endpoint, _WHAT))
        if found is None or caller.account_seq not in {None, found.record.account_seq}:
            raise not_found(_WHAT, endpoint)
        return found.record

    async def _problems(self, draft: EndpointDraft) -> list[Problem]:
        found = draft.problems()
        if not isinstance(draft.url, Unset):
            wrong = await self._registrar.check(draft.url)
            found[:0] = [] if wrong is None else [wrong]
        _, unfit = pattern_problems(given_or_none(draft.event_types) or (), self._context.cache.event_types)
        found.extend(unfit)
        return found

    async def shown(self, endpoint: Endpoint, secret: str | None = None, *, repeated: bool = False) -> Shown:
        """An endpoint that was read or changed just now, as its owner may see it."""
        [shown] = await self._all_shown([endpoint])
        return replace(shown, secret=secret, repeated=repeated)

    async def _all_shown(self, found: Sequence[Endpoint]) -> list[Shown]:
        """Endpoints with the failures that explain them and with how much they hold, which are read all at once."""
        live = self._context.cache.endpoints
        failing = {
            endpoint.seq: live[endpoint.seq].failed_event if endpoint.seq in live else None
            for endpoint in found
            if endpoint.failing_since is not None
        }
        # Whatever was never switched off since it was made holds nothing.
        holding = [endpoint.seq for endpoint in found if endpoint.state_since is not None]
        off = {endpoint.seq for endpoint in found if endpoint.state is not EndpointState.ENABLED}
        failures: Mapping[int, Attempt | None] = {}
        held: Mapping[int, int] = {}
        if failing or holding:
            failures, held = await self._context.database.read(
                lambda c: (
                    {seq: health.last_failure(c, seq, event) for seq, event in failing.items()},
                    endpoint_backlog.held_counts(c, holding, limit=HELD_COUNTED_MAX, off=off),
                )
            )
        return [
            Shown(
                endpoint,
                self._headers(endpoint),
                failures.get(endpoint.seq),
                held.get(endpoint.seq, 0),
                self._context.engine.status.next_probe_at(endpoint.seq),
                self._context.engine.status.disable_at(endpoint.seq),
                self._context.engine.status.warn_at(endpoint.seq),
            )
            for endpoint in found
        ]

    def _headers(self, endpoint: Endpoint) -> dict[str, str]:
        if endpoint.headers is None:
            return {}
        headers: dict[str, str] = json.loads(self._cipher.decrypt(endpoint.headers, endpoint.id, "headers"))
        return headers

    def _sealed(self, headers: Mapping[str, str] | None, endpoint_id: bytes, *, bound: bool) -> bytes | None:
        return self._cipher.encrypt(json.dumps(dict(headers)), endpoint_id, "headers", bound=bound) if headers else None

    async def _create(self, caller: Caller, account_seq: int, draft: EndpointDraft, repeat: Repeat | None) -> Shown:
        now, endpoint_id = self._context.now(), self._context.new_id()
        secret = given_or_none(draft.secret) or generate_secret(self._context.random_bytes(SECRET_KEY_BYTES_GENERATED))
        request = request_of(repeat, account_seq, _WHAT)
        greeting = self._greeter.prepare(account_seq)

        def create(connection: Transaction) -> Endpoint:
            bound = must_bind(connection, self._cipher)
            endpoint = endpoints.create(
                connection,
                endpoint_id=endpoint_id,
                account_seq=account_seq,
                url=given(draft.url),
                description=given_or_none(draft.description) or "",
                event_types=tuple(given_or_none(draft.event_types) or ()),
                secret=self._cipher.encrypt(secret, endpoint_id, "secret", bound=bound),
                headers=self._sealed(given_or_none(draft.headers), endpoint_id, bound=bound),
                settings=EndpointSettings(**draft.settings),
                now=now,
            )
            details = {"url": without_query(endpoint.url), "event_types": list(endpoint.event_types)}
            self._note(connection, caller, "endpoint.created", endpoint, details)
            return endpoint

        def create_and_greet(connection: Transaction) -> tuple[tuple[Endpoint, bool], list[NewEvent]]:
            endpoint, repeated = idempotency.once(
                connection,
                request,
                object_id=endpoint_id,
                now=now,
                create=lambda: create(connection),
                load=lambda earlier: endpoints.get(connection, account_seq, earlier),
            )
            return (endpoint, repeated), [] if repeated else greeting(endpoint)

        try:
            endpoint, repeated = await self._context.database.write_with_events(create_and_greet)
        except Conflict as error:
            raise refusal(error) from error
        if repeated:
            return await self.shown(endpoint, repeated=True)
        self._context.cache.put_endpoint(endpoint)
        self._context.engine.endpoints.note_due(endpoint.seq)
        return await self.shown(endpoint, secret)

    async def _update(self, caller: Caller, endpoint: str, draft: EndpointDraft) -> Endpoint:
        now, endpoint_id = self._context.now(), parse_id(ids.ENDPOINT, endpoint, _WHAT)

        def change(stored: Endpoint, *, bound: bool) -> Endpoint:
            return replace(
                stored,
                url=given_or(draft.url, stored.url),
                description=given_or(draft.description, stored.description) or "",
                event_types=stored.event_types
                if isinstance(draft.event_types, Unset)
                else tuple(draft.event_types or ()),
                headers=stored.headers
                if isinstance(draft.headers, Unset)
                else self._sealed(draft.headers, endpoint_id, bound=bound),
                settings=replace(stored.settings, **draft.settings),
                updated_at=now,
            )

        def update(connection: Transaction) -> Endpoint | None:
            details: dict[str, object] = {}
            bound = must_bind(connection, self._cipher)

            def noted(stored: Endpoint) -> Endpoint:
                changed = change(stored, bound=bound)
                details.update(difference(self._fields(stored), self._fields(changed), shown=_AUDITED))
                return changed

            changed = endpoints.update(connection, caller.account_seq, endpoint_id, noted)
            if changed is not None and details:
                self._note(connection, caller, "endpoint.changed", changed, details)
            return changed

        changed = await self._context.database.write(update)
        if changed is None:
            raise not_found(_WHAT, endpoint)
        self._context.cache.put_endpoint(changed)
        return changed

    async def _delete(self, caller: Caller, endpoint: str) -> None:
        now, endpoint_id = self._context.now(), parse_id(ids.ENDPOINT, endpoint, _WHAT)

        def delete(connection: Transaction) -> Endpoint | None:
            deleted = endpoints.delete(connection, caller.account_seq, endpoint_id, now=now)
            if deleted is not None:
                self._note(connection, caller, "endpoint.deleted", deleted, {"url": without_query(deleted.url)})
            return deleted

        deleted = await self._context.database.write(delete)
        if deleted is None:
            raise not_found(_WHAT, endpoint)
        self._context.cache.drop_endpoint(deleted.seq)
        self._context.engine.endpoints.deleted(deleted.seq)

    def _fields(self, endpoint: Endpoint) -> dict[str, object]:
        """What its owner says of it, its headers opened: sealed anew, the same ones look different."""
        fields = {name: getattr(endpoint, name) for name in _FIELDS}
        return {**fields, **endpoint.settings.by_name(), "headers": self._headers(endpoint)}

    def _note(
        self, connection: Transaction, caller: Caller, action: str, endpoint: Endpoint, details: Mapping[str, object]
    ) -> None:
        subject = ids.prefixed(ids.ENDPOINT, endpoint.id)
        audit.add(connection, self._context.entry(caller, action, subject, details, endpoint.account_seq))
