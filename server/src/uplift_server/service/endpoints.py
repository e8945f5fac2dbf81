"""Use cases that create, read, update and delete endpoints."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hmac import compare_digest
from typing import Any, Final

from msgspec import structs

from uplift_server.core import ids
from uplift_server.core.endpoint_settings import DEFAULTS, SETTING_NAMES, AttemptTimeouts
from uplift_server.core.events.subscriptions import pattern_problems
from uplift_server.core.http.headers import check_header_count
from uplift_server.core.limits import HELD_COUNTED_MAX, SECRET_KEY_BYTES_GENERATED
from uplift_server.core.own_data import check_metadata, metadata_of, metadata_text
from uplift_server.core.people.audit import difference, without_query
from uplift_server.core.problems import Problem
from uplift_server.core.security.endpoint_auth import audited_auth, auth_secrets, check_auth_with, shown_auth
from uplift_server.core.security.scopes import Scope
from uplift_server.core.security.signing import generate_secret
from uplift_server.service.backlogs import UNKNOWN, Backlogs, EndpointBacklog
from uplift_server.service.context import Listing, ServiceContext
from uplift_server.service.endpoint_auth import StoredAuth, auth_problems
from uplift_server.service.endpoint_drafts import EndpointDraft
from uplift_server.service.endpoint_queries import EndpointQuery, endpoint_filter
from uplift_server.service.fields import Unset, given, given_or, given_or_none
from uplift_server.service.idempotency import IdempotencyKey, check_idempotency_key, create_once, idempotent_request
from uplift_server.service.principals import Caller
from uplift_server.service.registration import RegistrationEvents, UrlChecker
from uplift_server.service.rejections import as_conflict, not_found, own_uid_problems, require_valid
from uplift_server.service.versions import Versions, require_version
from uplift_server.store import accounts, audit, endpoint_backlog, endpoints, outbox
from uplift_server.store.contract import Transaction
from uplift_server.store.encryption import Cipher
from uplift_server.store.encryption_upgrade import must_bind
from uplift_server.store.errors import Conflict
from uplift_server.store.hot_records import NewEvent
from uplift_server.store.records import Endpoint, EndpointState, Page

ALL: Final = EndpointQuery()
_KIND: Final = "endpoint"
_FIELDS: Final = ("url", "description", "event_types", "uid", "filter")
_OTHER_SECRET: Final = Problem(
    "secret",
    "secret_differs",
    "The secret differs from the endpoint's current secret. Omit the field, or rotate the secret of the endpoint.",
)
_AUDITED: Final = (*_FIELDS, *SETTING_NAMES, "auth")
"""The fields whose values the audit log shows. Headers and metadata are excluded, because they can contain secrets."""


@dataclass(frozen=True, slots=True)
class ShownEndpoint:
    """An endpoint as its owner sees it."""

    endpoint: Endpoint
    headers: dict[str, str] = field(repr=False)
    """The headers in plain text, not masked."""
    held_deliveries: int = 0
    """The number of held deliveries, counted up to HELD_COUNTED_MAX."""
    next_probe_at: int | None = None
    """When the next probe is due (Unix ms). Set only while the circuit breaker is open."""
    disable_at: int | None = None
    """When the server will disable the endpoint (Unix ms). Set only while it is failing."""
    warn_at: int | None = None
    """When the server will warn the contacts (Unix ms). Set only while the endpoint is failing and not yet warned."""
    backlog: EndpointBacklog = UNKNOWN
    auth: Mapping[str, Any] | None = None
    """The authentication without its secrets. The keys are the names of API fields."""
    secret: str | None = field(default=None, repr=False)
    """The signing secret. Set only in the response to the request that creates the endpoint."""
    repeated: bool = False


class Endpoints:
    """Creates, reads, updates and deletes endpoints."""

    def __init__(
        self,
        context: ServiceContext,
        cipher: Cipher,
        backlogs: Backlogs,
        url_checker: UrlChecker,
        registration_events: RegistrationEvents,
        timeouts: AttemptTimeouts,
    ) -> None:
        self._context = context
        self._backlogs = backlogs
        self._cipher = cipher
        self._auth = StoredAuth(cipher)
        self._url_checker = url_checker
        self._registration_events = registration_events
        self.timeouts = timeouts

    async def create(
        self,
        caller: Caller,
        draft: EndpointDraft,
        *,
        idempotency_key: IdempotencyKey | None = None,
        problems: Sequence[Problem] = (),
    ) -> ShownEndpoint:
        """Create an endpoint.

        The result contains the signing secret, unless the request repeats an earlier request.
        """
        caller.require(Scope.ENDPOINTS_WRITE)
        account_seq = caller.require_account()
        require_valid([*problems, *await self._problems(draft), check_idempotency_key(idempotency_key)])
        return await self._context.run_shielded(self._create(caller, account_seq, draft.normalized(), idempotency_key))

    async def page(
        self,
        caller: Caller,
        listing: Listing,
        query: EndpointQuery = ALL,
        *,
        problems: Sequence[Problem] = (),
    ) -> Page[ShownEndpoint]:
        """Return a page of the account's endpoints."""
        caller.require(Scope.ENDPOINTS_READ)
        wrong = [*problems]
        wanted = endpoint_filter(self._context, query, wrong)
        request = self._context.page_request(listing, 1, wrong)
        found = await self._context.database.read(lambda c: endpoints.page(c, caller.account_seq, wanted, request))
        return found.of(await self._show_all(found.items))

    async def get(self, caller: Caller, endpoint: str) -> ShownEndpoint:
        """Return an endpoint. Raises NotFound."""
        caller.require(Scope.ENDPOINTS_READ)
        endpoint_id = self._id(caller, endpoint)
        found = await self._context.database.read(lambda c: endpoints.get(c, caller.account_seq, endpoint_id))
        if found is None:
            raise not_found(_KIND, endpoint)
        return await self.show(found)

    async def get_many(self, seqs: Sequence[int]) -> list[ShownEndpoint]:
        """Return the endpoints with these sequence numbers, in the given order. Omit deleted endpoints."""
        found = await self._context.database.read(lambda c: endpoints.find(c, seqs))
        by_seq = {endpoint.seq: endpoint for endpoint in found}
        return await self._show_all([by_seq[seq] for seq in seqs if seq in by_seq])

    async def update(
        self,
        caller: Caller,
        endpoint: str,
        draft: EndpointDraft,
        *,
        versions: Versions = None,
        problems: Sequence[Problem] = (),
    ) -> ShownEndpoint:
        """Update an endpoint. The next attempt uses the new values. Raises NotFound or PreconditionFailed."""
        caller.require(Scope.ENDPOINTS_WRITE)
        record = self.find_cached(caller, endpoint)
        require_valid([*problems, *await self._problems(draft)])
        changed = await self._context.run_shielded(self._update(caller, record, draft.normalized(), versions))
        return await self.show(changed)

    async def put(
        self,
        caller: Caller,
        endpoint: str,
        draft: EndpointDraft,
        *,
        versions: Versions = None,
        problems: Sequence[Problem] = (),
    ) -> tuple[ShownEndpoint, bool]:
        """Update an endpoint, or create it if none of the account's endpoints has the given uid.

        Return the endpoint, and whether it is new. If `endpoint` is an ID instead of a uid, the endpoint must exist.
        Raises NotFound or PreconditionFailed.
        """
        caller.require(Scope.ENDPOINTS_WRITE)
        if ids.parse_prefixed(ids.ENDPOINT, endpoint) is not None:
            return await self.update(caller, endpoint, draft, versions=versions, problems=problems), False
        account_seq = caller.require_account()
        require_valid([*problems, *own_uid_problems(endpoint, draft.uid), *await self._problems(draft)])
        named = replace(draft.normalized(), uid=endpoint)
        return await self._context.run_shielded(self._put(caller, account_seq, endpoint, named, versions))

    async def delete(self, caller: Caller, endpoint: str) -> None:
        """Delete an endpoint, and cancel its pending and held deliveries. Raises NotFound."""
        caller.require(Scope.ENDPOINTS_WRITE)
        await self._context.run_shielded(self._delete(caller, endpoint))

    async def is_in_use(self, caller: Caller) -> bool:
        """Return whether any endpoint of the account was verified or has accepted an event."""
        account_seq = caller.require_account()
        return await self._context.database.read(lambda c: endpoints.is_in_use(c, account_seq))

    def all(self, caller: Caller) -> list[Endpoint]:
        """Return all cached endpoints of the caller's account, newest first."""
        caller.require(Scope.ENDPOINTS_READ)
        live = self._context.cache.endpoints_of(caller.require_account())
        return sorted((each.record for each in live), key=lambda endpoint: endpoint.seq, reverse=True)

    def subscribed(self, caller: Caller, type_name: str) -> list[Endpoint]:
        """Return the cached endpoints that subscribe to this event type, newest first."""
        caller.require(Scope.ENDPOINTS_READ)
        live = self._context.cache.subscribers(caller.require_account(), type_name).endpoints
        return sorted((each.record for each in live), key=lambda endpoint: endpoint.seq, reverse=True)

    def find_cached(self, caller: Caller, endpoint: str) -> Endpoint:
        """Return the caller's endpoint from the cache. Raises NotFound."""
        found = self._context.find_endpoint(caller, endpoint)
        if found is None:
            raise not_found(_KIND, endpoint)
        return found.record

    def _id(self, caller: Caller, endpoint: str) -> bytes:
        endpoint_id = self._context.endpoint_id(caller, endpoint)
        if endpoint_id is None:
            raise not_found(_KIND, endpoint)
        return endpoint_id

    async def _problems(self, draft: EndpointDraft) -> list[Problem | None]:
        found = draft.problems(self.timeouts)
        if not isinstance(draft.url, Unset):
            found.insert(0, await self._url_checker.check(draft.url))
        found.extend(await auth_problems(draft.auth, self._url_checker, self._context.now()))
        if not isinstance(draft.url, Unset):
            auth = None if isinstance(draft.auth, Unset) else draft.auth
            found.append(check_auth_with(auth, draft.url, draft.headers_after({})))
        _, unknown = pattern_problems(given_or_none(draft.event_types) or (), self._context.cache.event_types)
        found.extend(unknown)
        return found

    async def show(self, endpoint: Endpoint, secret: str | None = None, *, repeated: bool = False) -> ShownEndpoint:
        """Return a stored endpoint as its owner sees it."""
        [shown] = await self._show_all([endpoint])
        return replace(shown, secret=secret, repeated=repeated)

    async def _show_all(self, found: Sequence[Endpoint]) -> list[ShownEndpoint]:
        """Return stored endpoints as their owner sees them."""
        # An endpoint that was never paused or disabled has no held deliveries.
        with_held = [endpoint.seq for endpoint in found if endpoint.state_since is not None]
        off = {endpoint.seq for endpoint in found if endpoint.state is not EndpointState.ENABLED}
        held: Mapping[int, int] = {}
        if with_held:
            held = await self._context.database.read(
                lambda c: endpoint_backlog.held_counts(c, with_held, limit=HELD_COUNTED_MAX, inactive=off)
            )
        backlogs = await self._backlogs.of_endpoints([endpoint.seq for endpoint in found])
        return [
            ShownEndpoint(
                endpoint,
                self._decrypted_headers(endpoint),
                held.get(endpoint.seq, 0),
                self._context.engine.status.next_probe_at(endpoint.seq),
                self._context.engine.status.disable_at(endpoint.seq),
                self._context.engine.status.warn_at(endpoint.seq),
                backlogs[endpoint.seq],
                shown_auth(self._auth.of(endpoint)),
            )
            for endpoint in found
        ]

    def _decrypted_headers(self, endpoint: Endpoint) -> dict[str, str]:
        if endpoint.headers is None:
            return {}
        headers: dict[str, str] = json.loads(self._cipher.decrypt(endpoint.headers, endpoint.id, "headers"))
        return headers

    def _encrypted_headers(self, headers: Mapping[str, str], endpoint_id: bytes, *, bound: bool) -> bytes | None:
        return self._cipher.encrypt(json.dumps(dict(headers)), endpoint_id, "headers", bound=bound) if headers else None

    async def _create(
        self, caller: Caller, account_seq: int, draft: EndpointDraft, idempotency_key: IdempotencyKey | None
    ) -> ShownEndpoint:
        now, endpoint_id = self._context.now(), self._context.new_id()
        secret = self._new_secret(draft)
        request = idempotent_request(idempotency_key, account_seq, _KIND)
        registration_event = self._registration_events.prepare(account_seq)

        def create(connection: Transaction) -> Endpoint:
            return self._insert(connection, caller, account_seq, endpoint_id, draft, secret, now)

        def load(connection: Transaction, earlier: bytes) -> Endpoint | None:
            return endpoints.get(connection, account_seq, earlier)

        once = create_once(request, endpoint_id, now, create, load)

        def create_with_event(connection: Transaction) -> tuple[tuple[Endpoint, bool], list[NewEvent]]:
            endpoint, repeated = once(connection)
            return (endpoint, repeated), [] if repeated else registration_event(endpoint)

        endpoint, repeated = await self._write_with_events(create_with_event)
        return await self.show(endpoint, repeated=True) if repeated else await self._show_new(endpoint, secret)

    def _new_secret(self, draft: EndpointDraft) -> str:
        return given_or_none(draft.secret) or generate_secret(self._context.random_bytes(SECRET_KEY_BYTES_GENERATED))

    def _insert(
        self,
        connection: Transaction,
        caller: Caller,
        account_seq: int,
        endpoint_id: bytes,
        draft: EndpointDraft,
        secret: str,
        now: int,
    ) -> Endpoint:
        bound = must_bind(connection, self._cipher)
        auth = self._auth.columns(draft.auth, endpoint_id)
        endpoint = endpoints.create(
            connection,
            endpoint_id=endpoint_id,
            account_seq=account_seq,
            url=given(draft.url),
            description=given_or_none(draft.description) or "",
            event_types=tuple(given_or_none(draft.event_types) or ()),
            secret=self._cipher.encrypt(secret, endpoint_id, "secret", bound=bound),
            headers=self._encrypted_headers(draft.headers_after({}), endpoint_id, bound=bound),
            settings=DEFAULTS.updated(draft.settings),
            uid=given_or_none(draft.uid),
            metadata=metadata_text(draft.metadata_after({})),
            filter_text=draft.filter_after(None),
            auth=auth.encrypted,
            certificate_expires_at=auth.certificate_expires_at,
            state=EndpointState.PAUSED if draft.is_paused else EndpointState.ENABLED,
            now=now,
        )
        details: dict[str, object] = {"url": without_query(endpoint.url), "event_types": list(endpoint.event_types)}
        if endpoint.filter is not None:
            details["filter"] = endpoint.filter
        if endpoint.auth is not None:
            details["auth"] = audited_auth(self._auth.of(endpoint))
        if draft.is_paused:
            details["state"] = endpoint.state.text
        self._audit(connection, caller, "endpoint.created", endpoint, details)
        return endpoint

    async def _write_with_events(
        self, body: Callable[[Transaction], tuple[tuple[Endpoint, bool], list[NewEvent]]]
    ) -> tuple[Endpoint, bool]:
        try:
            return await self._context.database.write_with_events(body)
        except Conflict as error:
            raise as_conflict(error) from error

    async def _show_new(self, endpoint: Endpoint, secret: str) -> ShownEndpoint:
        self._context.cache.put_endpoint(endpoint)
        if endpoint.state is EndpointState.ENABLED:
            self._context.engine.endpoints.note_due(endpoint.seq)
        return await self.show(endpoint, secret)

    async def _update(self, caller: Caller, record: Endpoint, draft: EndpointDraft, versions: Versions) -> Endpoint:
        now = self._context.now()

        def update(connection: Transaction) -> Endpoint | None:
            if not isinstance(draft.uid, Unset):
                accounts.require(connection, record.account_seq)
            return self._change(connection, caller, record, draft, versions, now)

        changed = await self._context.write(update)
        if changed is None:
            raise not_found(_KIND, ids.prefixed(ids.ENDPOINT, record.id))
        self._context.engine.endpoints.apply(changed)
        return changed

    def _change(
        self,
        connection: Transaction,
        caller: Caller,
        record: Endpoint,
        draft: EndpointDraft,
        versions: Versions,
        now: int,
    ) -> Endpoint | None:
        bound, details = must_bind(connection, self._cipher), dict[str, object]()

        def change(stored: Endpoint) -> Endpoint:
            require_version(stored, versions)
            headers = draft.headers_after(self._decrypted_headers(stored))
            metadata = draft.metadata_after(metadata_of(stored.metadata))
            same_secret = self._check_same_secret(draft, stored)
            changed = self._auth.changed(stored, draft.auth)
            url = given_or(draft.url, stored.url)
            conflict = check_auth_with(self._auth.of(changed), url, headers)
            require_valid([check_header_count(headers), *check_metadata(metadata), same_secret, conflict])
            changed = structs.replace(
                changed,
                url=url,
                description=given_or(draft.description, stored.description) or "",
                event_types=stored.event_types
                if isinstance(draft.event_types, Unset)
                else tuple(draft.event_types or ()),
                headers=stored.headers
                if isinstance(draft.headers, Unset)
                else self._encrypted_headers(headers, stored.id, bound=bound),
                settings=stored.settings.updated(draft.settings),
                uid=given_or(draft.uid, stored.uid),
                metadata=metadata_text(metadata),
                filter=draft.filter_after(stored.filter),
                updated_at=now,
            )
            details.update(difference(self._fields(stored), self._fields(changed), shown=_AUDITED))
            return changed if details else stored

        changed = endpoints.update(connection, record.account_seq, record.id, change)
        if changed is not None and details:
            self._audit(connection, caller, "endpoint.changed", changed, details)
        return changed

    def _check_same_secret(self, draft: EndpointDraft, stored: Endpoint) -> Problem | None:
        """Return a problem if the secret in the request differs from the endpoint's secret.

        Only a rotation can replace the secret.
        """
        secret = given_or_none(draft.secret)
        current = self._cipher.decrypt(stored.secret, stored.id, "secret")
        return None if secret is None or compare_digest(secret.encode(), current.encode()) else _OTHER_SECRET

    async def _put(
        self, caller: Caller, account_seq: int, uid: str, draft: EndpointDraft, versions: Versions
    ) -> tuple[ShownEndpoint, bool]:
        now, endpoint_id = self._context.now(), self._context.new_id()
        secret = self._new_secret(draft)
        registration_event = self._registration_events.prepare(account_seq)

        def put(connection: Transaction) -> tuple[tuple[Endpoint, bool], list[NewEvent]]:
            accounts.require(connection, account_seq)
            stored = endpoints.get_by_uid(connection, account_seq, uid)
            if stored is None:
                require_version(None, versions)
                endpoint = self._insert(connection, caller, account_seq, endpoint_id, draft, secret, now)
                return (endpoint, True), registration_event(endpoint)
            changed = self._change(connection, caller, stored, draft, versions, now)
            if changed is None:
                raise Conflict("Another request deleted the endpoint at the same time. Repeat the request.")
            return (changed, False), []

        endpoint, is_new = await self._write_with_events(put)
        if is_new:
            return await self._show_new(endpoint, secret), True
        self._context.engine.endpoints.apply(endpoint)
        return await self.show(endpoint), False

    async def _delete(self, caller: Caller, endpoint: str) -> None:
        now, endpoint_id = self._context.now(), self._id(caller, endpoint)

        def delete(connection: Transaction) -> Endpoint | None:
            deleted = endpoints.delete(connection, caller.account_seq, endpoint_id, now=now)
            if deleted is not None:
                outbox.withdraw_warnings(connection, deleted.account_seq, ids.prefixed(ids.ENDPOINT, deleted.id))
                self._audit(connection, caller, "endpoint.deleted", deleted, {"url": without_query(deleted.url)})
            return deleted

        deleted = await self._context.database.write(delete)
        if deleted is None:
            raise not_found(_KIND, endpoint)
        self._context.cache.drop_endpoint(deleted.seq)
        self._context.engine.endpoints.deleted(deleted.seq)

    def _fields(self, endpoint: Endpoint) -> dict[str, object]:
        """Return an endpoint's fields in decrypted form, for a comparison.

        Encrypted values always differ, even if their content is the same.
        """
        fields = {name: getattr(endpoint, name) for name in _FIELDS}
        auth = self._auth.of(endpoint)
        hidden = {
            "headers": self._decrypted_headers(endpoint),
            "metadata": endpoint.metadata,
            "auth_secret": auth_secrets(auth),
        }
        return {**fields, **endpoint.settings.as_json(), "auth": audited_auth(auth), **hidden}

    def _audit(
        self, connection: Transaction, caller: Caller, action: str, endpoint: Endpoint, details: Mapping[str, object]
    ) -> None:
        subject = ids.prefixed(ids.ENDPOINT, endpoint.id)
        audit.add(connection, self._context.audit_entry(caller, action, subject, details, endpoint.account_seq))
