"""In-memory cache of endpoints, event types, accounts and API keys.

If the cache and the database differ, the database contains the correct value. A service that changes a record updates
the cache before it responds, so the change takes effect immediately. Only code on the event loop reads and changes the
cache.
"""

import asyncio
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

import jsonschema_rs
import msgspec
import structlog

from uplift_server.core.deliveries.health import Health
from uplift_server.core.events.filters import Filter
from uplift_server.core.events.schema_cost import SchemaCost
from uplift_server.core.events.schema_graph import SchemaGraph
from uplift_server.core.events.subscriptions import Subscription
from uplift_server.core.ids import ACCOUNT, ENDPOINT, parse_prefixed, prefixed
from uplift_server.core.limits import PATTERN_BACKTRACKS_MAX, SCHEMA_PROBLEMS_MAX
from uplift_server.core.people.audit import without_query
from uplift_server.core.problems import Problem
from uplift_server.core.security.access_tokens import AccessToken
from uplift_server.delivery.key_cache import KeyCache
from uplift_server.delivery.ports import Shards
from uplift_server.delivery.request_parts import RequestParts, create_request_parts
from uplift_server.store.encryption import Cipher, is_unbound
from uplift_server.store.records import Account, ApiKey, DisabledReason, Endpoint, EndpointState, EventType, ServiceKey

SUBSCRIPTIONS_KEPT_MAX: Final = 1_000
"""The maximum number of compiled subscriptions in memory, and of compiled filters. Endpoints with the same subscription
or filter share the compiled object."""

_DISABLED_BY_SERVER: Final = (DisabledReason.FAILING, DisabledReason.GONE)
_log = structlog.get_logger("uplift.cache")


class LiveEventType:
    """An event type in memory, with its compiled schema."""

    __slots__ = ("_cost", "_validator", "name", "name_bytes", "record", "seq")

    def __init__(self, record: EventType) -> None:
        self.record = record
        self.seq = record.seq
        self.name = record.name
        self.name_bytes = record.name.encode()
        self._validator: jsonschema_rs.Validator | None = None
        if record.schema is not None:
            self._validator, may_backtrack = _compile_stored(record.schema)
            self._cost = SchemaCost(SchemaGraph(json.loads(record.schema)), may_backtrack=may_backtrack)
            if may_backtrack:
                _log.warning(
                    "schema pattern needs backtracking",
                    event_type=record.name,
                    how_to_fix="update the schema: use patterns without lookaround or backreferences",
                )

    @property
    def archived(self) -> bool:
        """Whether the server rejects new events of this type."""
        return self.record.archived_at is not None

    def problems(self, data: bytes) -> list[Problem]:
        """Check an event's data (JSON) against the type's schema. Return at most SCHEMA_PROBLEMS_MAX problems.

        If the check would take longer than SCHEMA_CHECK_NS_MAX, return a single problem: the data is too large.
        """
        if self._validator is None:
            return []
        try:
            value = msgspec.json.decode(data)
            if not self._cost.is_affordable(data, value):
                text = (
                    f"The data is too large to check against the schema of {self.name}. Send fewer or shorter values."
                )
                return [Problem("data", "not_checkable", text)]
            if self._validator.is_valid(value):
                return []
        except (ValueError, RecursionError, OverflowError) as unchecked:
            text = f"The schema check of {self.name} failed: {unchecked}. Send numbers within the range of a double."
            return [Problem("data", "not_checkable", text)]
        found = []
        for error in itertools.islice(self._errors(data, value), SCHEMA_PROBLEMS_MAX):
            path = ".".join(["data", *map(str, error.instance_path)])
            text = f"{error.message[:300]}. Compare the data with the schema of {self.name}."
            found.append(Problem(path, "schema_mismatch", text))
        if found:
            return found
        text = f"The data does not match the schema of {self.name}. Compare it with the schema."
        return [Problem("data", "schema_mismatch", text)]

    def _errors(self, data: bytes, value: object) -> Iterable[jsonschema_rs.ValidationError]:
        """Return the errors in data that does not match the schema.

        If the search for all errors would take too long, return at most one error.
        """
        assert self._validator is not None
        if self._cost.is_explainable(data, value):
            return self._validator.iter_errors(value)
        if self._cost.has_alternatives or self._cost.repeats_recursion:
            return []
        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as first:
            return [first]
        return []


def compile_schema(schema: str, *, may_backtrack: bool = False) -> jsonschema_rs.Validator:
    """Compile a JSON Schema 2020-12 (JSON text). Raises ValueError if the schema is not valid.

    References resolve only within the schema. Patterns run in linear time unless `may_backtrack` is set.
    """
    patterns = (
        jsonschema_rs.FancyRegexOptions(backtrack_limit=PATTERN_BACKTRACKS_MAX)
        if may_backtrack
        else jsonschema_rs.RegexOptions()
    )
    try:
        return jsonschema_rs.Draft202012Validator(
            json.loads(schema), validate_formats=False, offline=True, pattern_options=patterns
        )
    except Exception as error:
        raise ValueError(str(error)) from error


def _compile_stored(schema: str) -> tuple[jsonschema_rs.Validator, bool]:
    """Compile a stored schema. Return the validator, and whether its patterns can backtrack.

    Earlier releases accepted patterns that backtrack.
    """
    try:
        return compile_schema(schema), False
    except ValueError:
        return compile_schema(schema, may_backtrack=True), True


class EndpointToken(NamedTuple):
    """An endpoint's access token, which the server keeps only in memory."""

    token: AccessToken
    auth: bytes | None
    """The encrypted authentication settings with which the server requested the token."""
    received_at: int
    """The time when the server received the token (Unix ms)."""


class LiveEndpoint:
    """An endpoint in memory.

    The object stays the same when the endpoint's record changes, so queued deliveries use the new record.
    """

    __slots__ = (
        "_create_parts",
        "_filter",
        "_parts",
        "account_text",
        "deleted",
        "health",
        "health_saved_at",
        "health_saved_failing",
        "id_text",
        "record",
        "seq",
        "subscription",
        "token",
    )

    id_text: str
    account_text: str
    health: Health
    """The health after the last attempt. The health in `record` can be older."""
    record: Endpoint
    subscription: Subscription

    def __init__(self, seq: int, create_parts: Callable[[Endpoint], RequestParts]) -> None:
        self.seq = seq
        self._create_parts = create_parts
        self._parts: RequestParts | None = None
        self._filter: Filter | None = None
        self.deleted = False
        self.token: EndpointToken | None = None
        self.health_saved_at = 0
        self.health_saved_failing = False

    @property
    def parts(self) -> RequestParts:
        """The constant parts of the endpoint's requests.

        The parts are created on first use, because creating the parts for 100,000 endpoints takes seconds.
        """
        if self._parts is None:
            self._parts = self._create_parts(self.record)
        return self._parts

    def put(self, record: Endpoint, parts: RequestParts | None = None) -> None:
        """Replace the endpoint's record and the constant parts of its requests."""
        self.record, self._parts, self._filter = record, parts, None

    @property
    def filter(self) -> Filter | None:
        """The compiled filter of the endpoint, or None if the endpoint has no filter.

        The filter is compiled on first use.
        """
        if self._filter is None and self.record.filter is not None:
            self._filter = compiled_filter(self.record.filter)
        return self._filter

    def has_in_url(self, text: str) -> bool:
        """Return whether the URL without its query contains `text`, or the whole URL equals `text`, regardless of case.

        Text that occurs only in the query does not match, so that searches cannot reveal a token in the query.
        """
        url, wanted = self.record.url, text.casefold()
        return wanted in without_query(url).casefold() or wanted == url.casefold()

    def is_named(self, text: str) -> bool:
        """Return whether `text` is the endpoint's public ID or uid, regardless of case."""
        wanted = text.casefold()
        return wanted == self.id_text or (self.record.uid is not None and wanted == self.record.uid.casefold())

    @property
    def takes_deliveries(self) -> bool:
        """Whether the endpoint is enabled and not deleted, so that the server attempts new deliveries to it."""
        return self.record.state is EndpointState.ENABLED and not self.deleted

    @property
    def is_broken(self) -> bool:
        """Whether the endpoint is failing, or the server disabled it because of failures or a 410 response."""
        if self.takes_deliveries:
            return self.health.failing_since is not None
        return self.record.disabled_reason in _DISABLED_BY_SERVER and self.record.state is EndpointState.DISABLED


@lru_cache(SUBSCRIPTIONS_KEPT_MAX)
def _subscription(patterns: tuple[str, ...]) -> Subscription:
    return Subscription(patterns)


@lru_cache(SUBSCRIPTIONS_KEPT_MAX)
def compiled_filter(text: str) -> Filter:
    """Return the compiled form of a stored filter (JSON text).

    Endpoints with the same filter share the compiled form.
    """
    return Filter(text)


class Subscribers(NamedTuple):
    """The endpoints of an account that are subscribed to an event type."""

    endpoints: tuple[LiveEndpoint, ...]
    have_filters: bool
    """Whether at least one of the endpoints has a filter."""


class EndpointLimits(Protocol):
    """The interface that applies endpoint limits to the endpoints' lanes."""

    def adjust(self, endpoint: LiveEndpoint) -> None:
        """Apply an endpoint's limits and host after the endpoint was created or changed."""


class EndpointCache(KeyCache):
    """Cache of accounts, API keys, event types and endpoints."""

    def __init__(self, cipher: Cipher, user_agent: str, shards: Shards, limits: EndpointLimits) -> None:
        super().__init__()
        self.cipher = cipher
        self._user_agent = user_agent
        self._shards = shards
        self._limits = limits
        self.accounts: dict[int, Account] = {}
        self.accounts_by_id: dict[bytes, Account] = {}
        self._accounts_by_uid: dict[str, Account] = {}
        self.event_types: dict[str, LiveEventType] = {}
        self.event_types_by_seq: dict[int, LiveEventType] = {}
        self.endpoints: dict[int, LiveEndpoint] = {}
        self.endpoints_by_id: dict[bytes, LiveEndpoint] = {}
        self._endpoints_by_uid: dict[tuple[int, str], LiveEndpoint] = {}
        self._by_account: dict[int, dict[int, LiveEndpoint]] = {}
        self._subscribers: dict[tuple[int, str], Subscribers] = {}
        self.overlaps: dict[int, int] = {}
        """For each endpoint with an old secret, the time when the old secret expires (Unix ms)."""
        self.overlap_added = asyncio.Event()

    def load(
        self,
        accounts: Iterable[Account],
        keys: Iterable[ApiKey],
        event_types: Iterable[EventType],
        endpoints: Iterable[Endpoint],
        service_keys: Iterable[ServiceKey] = (),
    ) -> None:
        """Fill the cache with the stored records. Raises WrongSecretKey if a secret cannot be decrypted.

        If an account is created during the load, skip its endpoints. Cache sync adds the account and its endpoints
        later.
        """
        for account in accounts:
            self.put_account(account)
        for key in keys:
            self.put_key(key)
        for service_key in service_keys:
            self.put_service_key(service_key)
        for event_type in event_types:
            self.put_event_type(event_type)
        for endpoint in endpoints:
            if endpoint.account_seq in self.accounts:
                self._load_endpoint(endpoint)

    def put_account(self, account: Account) -> None:
        """Add or replace an account."""
        self._note("accounts", account.seq)
        self._drop_account_uid(self.accounts.get(account.seq))
        self.accounts[account.seq] = account
        self.accounts_by_id[account.id] = account
        if account.uid is not None:
            self._accounts_by_uid[account.uid] = account

    def _drop_account_uid(self, account: Account | None) -> None:
        """Remove the uid of an account from the index, unless another account already has the uid."""
        if account is not None and account.uid is not None and self._accounts_by_uid.get(account.uid) is account:
            del self._accounts_by_uid[account.uid]

    def find_account(self, text: str) -> Account | None:
        """Return the account with this public ID or uid."""
        account_id = parse_prefixed(ACCOUNT, text)
        return self._accounts_by_uid.get(text) if account_id is None else self.accounts_by_id.get(account_id)

    def drop_account(self, seq: int) -> None:
        """Remove an account. Its keys and endpoints stay in the cache."""
        self._note("accounts", seq)
        account = self.accounts.pop(seq, None)
        self._drop_account_uid(account)
        if account is not None:
            del self.accounts_by_id[account.id]

    def usable_types(self) -> Iterator[str]:
        """Return the names of the event types that accept new events."""
        return (each.name for each in self.event_types.values() if not each.archived)

    def put_event_type(self, record: EventType) -> None:
        """Add or replace an event type."""
        self._note("event_types", record.name)
        live = LiveEventType(record)
        self.event_types[record.name] = live
        self.event_types_by_seq[record.seq] = live

    def drop_event_type(self, name: str) -> None:
        """Remove an event type from the catalog. Stored events keep the name of their type."""
        self._note("event_types", name)
        self.event_types.pop(name, None)

    def put_endpoint(self, record: Endpoint) -> None:
        """Add or replace an endpoint. Raises WrongSecretKey."""
        parts = self._create_parts(record)
        live = self.endpoints.get(record.seq)
        if live is None:
            live = self._new_endpoint(record)
        else:
            self._drop_endpoint_uid(live)
        live.put(record, parts)
        self._index(live)

    def _load_endpoint(self, record: Endpoint) -> None:
        """Add an endpoint without its constant request parts. Raises WrongSecretKey."""
        # Decrypt the secret now, so that a start with the wrong key fails.
        self.cipher.decrypt(record.secret, record.id, "secret")
        if record.previous_secret is not None:
            self.cipher.decrypt(record.previous_secret, record.id, "previous_secret")
        if record.headers is not None:
            self.cipher.decrypt(record.headers, record.id, "headers")
        if record.auth is not None:
            self.cipher.decrypt(record.auth, record.id, "auth")
        live = self._new_endpoint(record)
        live.put(record)
        self._index(live)

    def _new_endpoint(self, record: Endpoint) -> LiveEndpoint:
        live = LiveEndpoint(record.seq, self._create_parts)
        live.id_text = prefixed(ENDPOINT, record.id)
        live.account_text = prefixed(ACCOUNT, self.accounts[record.account_seq].id)
        live.health = record.health
        live.health_saved_failing = record.failing_since is not None
        self._shards.add(record.seq)
        return live

    def create_unbound_parts(self) -> Iterator[None]:
        """Create the request parts of the endpoints whose secrets or headers are encrypted in an earlier format.

        In this format, the encryption does not bind a value to its database column. Call this method before the
        encryption upgrade ends, because the cipher rejects such values afterward. Yield after each endpoint, so that
        the caller can run other tasks.
        """
        for live in list(self.endpoints.values()):
            record = live.record
            if any(each and is_unbound(each) for each in (record.secret, record.previous_secret, record.headers)):
                live.put(record, self._create_parts(record))
                yield

    def _create_parts(self, record: Endpoint) -> RequestParts:
        return create_request_parts(record, self.cipher, self._user_agent)

    def _index(self, live: LiveEndpoint) -> None:
        record = live.record
        self._note("endpoints", record.seq)
        live.subscription = _subscription(record.event_types)
        self.endpoints[record.seq] = live
        self.endpoints_by_id[record.id] = live
        if record.uid is not None:
            self._endpoints_by_uid[record.account_seq, record.uid] = live
        self._by_account.setdefault(record.account_seq, {})[record.seq] = live
        self._subscribers.clear()
        self._note_overlap(record)
        self._limits.adjust(live)

    def drop_endpoint(self, seq: int) -> None:
        """Remove a deleted endpoint. Mark it as deleted, because deliveries to it may still be queued."""
        self._note("endpoints", seq)
        live = self.endpoints.pop(seq, None)
        if live is not None:
            live.deleted = True
            self._shards.discard(seq)
            self.overlaps.pop(seq, None)
            self._drop_endpoint_uid(live)
            del self.endpoints_by_id[live.record.id]
            del self._by_account[live.record.account_seq][seq]
            self._subscribers.clear()

    def _drop_endpoint_uid(self, live: LiveEndpoint) -> None:
        """Remove the uid of an endpoint from the index, unless another endpoint of the account already has the uid."""
        key = (live.record.account_seq, live.record.uid or "")
        if self._endpoints_by_uid.get(key) is live:
            del self._endpoints_by_uid[key]

    def find_endpoint(self, account_seq: int | None, text: str) -> LiveEndpoint | None:
        """Return the endpoint with this public ID, or the account's endpoint with this uid.

        If `account_seq` is None, search all accounts, but only by public ID. A uid is unique only within its account.
        """
        endpoint_id = parse_prefixed(ENDPOINT, text)
        if endpoint_id is None:
            return None if account_seq is None else self._endpoints_by_uid.get((account_seq, text))
        found = self.endpoints_by_id.get(endpoint_id)
        return None if found is None or account_seq not in {None, found.record.account_seq} else found

    def _note_overlap(self, record: Endpoint) -> None:
        if record.previous_expires_at is None:
            self.overlaps.pop(record.seq, None)
        else:
            self.overlaps[record.seq] = record.previous_expires_at
            self.overlap_added.set()

    def endpoints_of(self, account_seq: int) -> Iterable[LiveEndpoint]:
        """Return the endpoints of an account."""
        return self._by_account.get(account_seq, {}).values()

    def subscribers(self, account_seq: int, event_type: str) -> Subscribers:
        """Return the endpoints of an account that are subscribed to an event type."""
        key = (account_seq, event_type)
        found = self._subscribers.get(key)
        if found is None:
            endpoints = tuple(each for each in self.endpoints_of(account_seq) if each.subscription.matches(event_type))
            have_filters = any(each.record.filter is not None for each in endpoints)
            found = self._subscribers[key] = Subscribers(endpoints, have_filters)
        return found
