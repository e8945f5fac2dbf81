"""Records that the store's functions take and return. The hot-path records are in `store.hot_records`."""

from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import msgspec

from uplift_server.core.deliveries.health import Health
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.endpoint_settings import DEFAULTS, EndpointSettings
from uplift_server.core.lifecycle import FailedReason, Status, Trigger
from uplift_server.core.named_codes import NamedCode
from uplift_server.core.security.rights import Role
from uplift_server.core.security.secrets import SecretPair


class EndpointState(NamedCode):
    """The states of an endpoint. The state determines whether the endpoint receives deliveries.

    The database stores states as numbers.
    """

    ENABLED = 0
    PAUSED = 1
    DISABLED = 2


class DisabledReason(NamedCode):
    """The reason why an endpoint is disabled: failed deliveries, the status code 410, or an operator."""

    FAILING = 0
    GONE = 1
    OPERATOR = 2


class HeldAction(NamedCode):
    """The action for an endpoint's held deliveries after the endpoint is enabled.

    The server processes the deliveries in batches.
    """

    SEND = 0
    DROP = 1
    KEEP = 2


@dataclass(frozen=True, slots=True)
class Account:
    """An account, which owns endpoints and receives events. Timestamps are Unix ms."""

    seq: int
    id: bytes
    name: str
    contact_emails: tuple[str, ...]
    created_at: int
    updated_at: int
    uid: str | None = None
    """The ID that the operator chose for the account, if any. It is unique among the accounts."""
    metadata: str | None = None
    """The metadata: a JSON object of strings. None if the object is empty."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key for an account, or for an operator if `account_seq` is None. The key text is not stored."""

    seq: int
    id: bytes
    account_seq: int | None
    name: str
    digest: bytes
    ends_with: str
    """The last characters of the key, to help people recognize it."""
    scopes: frozenset[str]
    created_at: int
    expires_at: int | None = None
    """The time when the key expires (Unix ms). None if it does not expire."""


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """A service key, which acts within its scopes for all accounts. The key text is not stored."""

    seq: int
    id: bytes
    name: str
    digest: bytes
    ends_with: str
    """The last characters of the key, to help people recognize it."""
    scopes: frozenset[str]
    created_at: int
    expires_at: int | None
    """The time when the key expires (Unix ms). None if it does not expire."""


@dataclass(frozen=True, slots=True)
class Person:
    """A person who signs in to the dashboard."""

    seq: int
    id: bytes
    email: str | None
    """The email, in lower case. None for a portal guest."""
    name: str
    password_hash: str | None = field(repr=False)
    """The password hash. None for a person who signs in only with portal links or single sign-on."""
    proved: bool
    """Whether an emailed link or an operator has verified the email."""
    created_at: int

    @property
    def title(self) -> str:
        """The person's name and email, as other people see them."""
        return self.name if self.email in (None, self.name) else f"{self.name} <{self.email}>"


@dataclass(frozen=True, slots=True)
class SecondFactor:
    """A person's authenticator app. `created_at` is in Unix ms."""

    person_id: bytes
    totp_secret: bytes = field(repr=False)
    """The encrypted key of the authenticator app."""
    last_step: int
    """The time step of the last used code. A code is valid only if its time step is later."""
    created_at: int


@dataclass(frozen=True, slots=True)
class Member:
    """A person's membership in an account, with a role."""

    seq: int
    id: bytes
    account_seq: int
    role: Role
    created_at: int
    person: Person
    has_identity: bool = False
    """Whether the person has an identity for single sign-on."""
    has_second_factor: bool = False
    """Whether the person must enter a code from the authenticator app after the password."""


@dataclass(frozen=True, slots=True)
class Session:
    """A dashboard session for a person, or for an operator if `person_seq` is None. Timestamps are Unix ms."""

    digest: bytes
    person_seq: int | None
    account_seq: int | None
    """The number of the only account that a session from a portal link can access. None for other sessions."""
    key_digest: bytes | None
    """The digest of the key that started an operator's session. The session ends when the key is revoked. After single
    sign-on, this is the digest of the settings that make the person an operator. None for a person's session."""
    created_at: int
    seen_at: int
    confirmed_at: int | None
    ends_at: int
    is_read_only: bool = False
    """Whether the session belongs to an operator who may only read."""
    subject: str | None = None
    """The ID of the person at the identity provider. None without single sign-on."""
    operator_name: str | None = None
    """The name of an operator who signed in with single sign-on. None for other sessions."""


@dataclass(frozen=True, slots=True)
class Link:
    """An unused one-time link. `expires_at` is in Unix ms."""

    id: bytes
    account_seq: int | None
    """The number of the account that the link opens. None for an operator's link."""
    email: str | None
    role: Role
    """The role of the member whom the link signs in."""
    key_digest: bytes | None
    """The digest of the key that created an operator's link. None for other links."""
    expires_at: int
    is_read_only: bool = False
    """Whether the link is for an operator who may only read."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """A pending invitation to an account."""

    seq: int
    id: bytes
    account_seq: int
    email: str
    role: Role
    invited_by: str
    proves: bool
    """Whether accepting the invitation verifies the email.

    True if the server emailed the link or an operator passed it on.
    """
    created_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class EventType:
    """An event type in the catalog. `schema` (a JSON Schema) and `example` are JSON texts that describe `data`."""

    seq: int
    name: str
    group: str
    description: str
    schema: str | None
    example: str | None
    api_version: str
    documented: bool
    created_at: int
    updated_at: int
    archived_at: int | None


_ENCRYPTED: Final = frozenset({"secret", "previous_secret", "headers", "auth"})


# Startup creates one object per endpoint. A frozen dataclass takes ten times as long: 0.25 s for 100,000 endpoints.
class Endpoint(msgspec.Struct, frozen=True):
    """An endpoint: a URL with its subscription, encrypted secrets, settings and health. Timestamps are Unix ms."""

    seq: int
    id: bytes
    account_seq: int
    url: str
    description: str
    event_types: tuple[str, ...]
    secret: bytes
    secret_created_at: int
    headers: bytes | None
    state: EndpointState
    disabled_reason: DisabledReason | None
    consecutive_failures: int
    failing_since: int | None
    last_success_at: int | None
    last_failure_at: int | None
    last_outcome: Outcome | None
    created_at: int
    updated_at: int
    previous_secret: bytes | None = None
    """The encrypted previous secret. Until `previous_expires_at`, the server signs requests with both secrets."""
    previous_expires_at: int | None = None
    uplift_header_new: bool = False
    """Whether x-uplift-signature-256 already uses `secret` while `previous_secret` is active."""
    excused_ms: int = 0
    warned_at: int | None = None
    state_since: int | None = None
    held_action: HeldAction | None = None
    """The action for the held deliveries of events up to `held_through`. The server sends the held deliveries of later
    events."""
    held_through: int | None = None
    """The number of the last event for which `held_action` applies to held deliveries."""
    last_status_code: int | None = None
    last_error: str | None = None
    last_location: str | None = None
    probe_at: int | None = None
    tested_at: int | None = None
    """The time of the last test event. A cached endpoint can have an earlier time."""
    verified_at: int | None = None
    """The time of the last signature check that the receiver passed. A cached endpoint can have an earlier time."""
    uid: str | None = None
    """The operator's own ID for the endpoint, if any. It is unique within the account."""
    metadata: str | None = None
    """The metadata: a JSON object of strings. None if the object is empty."""
    filter: str | None = None
    """The filter: a JSON object with a pattern for the `data` of events. None if the endpoint has no filter."""
    auth: bytes | None = None
    """The encrypted authentication. An update changes these bytes even if the authentication stays the same."""
    certificate_expires_at: int | None = None
    certificate_warned_at: int | None = None
    """The time of the last warning about the client certificate's expiry.

    A cached endpoint can have an earlier time.
    """
    settings: EndpointSettings = DEFAULTS

    def __repr__(self) -> str:
        """Return the endpoint as text, without the encrypted fields."""
        return f"Endpoint({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Return the fields that Rich shows: all except the encrypted fields."""
        return [(name, getattr(self, name)) for name in self.__struct_fields__ if name not in _ENCRYPTED]

    @property
    def secrets(self) -> SecretPair[bytes]:
        """The current and the previous secret, both encrypted."""
        return SecretPair(
            self.secret,
            self.secret_created_at,
            self.previous_secret,
            self.previous_expires_at,
            self.uplift_header_new,
        )

    @property
    def health(self) -> Health:
        """The endpoint's health in the database. The delivery engine can have newer health in memory."""
        return Health(
            self.consecutive_failures,
            self.failing_since,
            self.last_success_at,
            self.last_failure_at,
            self.last_outcome,
            self.excused_ms,
            self.warned_at,
            self.last_status_code,
            self.last_error,
            self.last_location,
            self.probe_at,
        )


@dataclass(frozen=True, slots=True)
class Event:
    """An accepted event. Timestamps are Unix ms."""

    seq: int
    id: bytes
    account_seq: int
    account_id: bytes
    type: str
    created_at: int
    expires_at: int | None
    api_version: str
    deliveries: dict[Status, int]
    """The number of deliveries by status. Statuses without deliveries are omitted."""
    object_id: str | None = None
    is_test: bool = False
    body: bytes | None = None
    """The body as JSON. None if the event is erased, or if a list was requested without bodies."""
    erased_at: int | None = None
    ordering_key: str | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """The delivery of one event to one endpoint. Timestamps are Unix ms."""

    event_seq: int
    endpoint_seq: int
    account_seq: int
    account_id: bytes
    event_id: bytes
    endpoint_id: bytes
    type: str
    status: Status
    leased: bool
    due_at: int | None
    attempts_made: int
    scheduled_attempts: int
    last_outcome: Outcome | None
    failed_reason: FailedReason | None
    created_at: int
    completed_at: int | None
    expires_at: int | None
    object_id: str | None = None
    erased_at: int | None = None
    """The time when the event was erased. None if the event is not erased."""
    is_test: bool = False
    order_group: int | None = None
    """The order group. The server sends its deliveries in event order. None without ordering."""
    blocked_by: str | None = None
    """The ID of the delivery for which a blocked delivery waits."""

    @property
    def is_blocked(self) -> bool:
        """Whether the delivery waits for another delivery in its order group."""
        return self.status is Status.PENDING and self.due_at is None


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt: one HTTP request for a delivery, with its duration and response. `started_at` is in Unix ms."""

    number: int
    trigger: Trigger
    started_at: int
    duration_us: int
    dns_ms: int | None
    connect_ms: int | None
    tls_ms: int | None
    first_byte_ms: int | None
    status_code: int | None
    outcome: Outcome
    error: str | None
    location: str | None
    remote_address: str | None
    request_head: bytes
    response_head: bytes
    response_body: bytes
    body_truncated: bool

    @property
    def is_erased(self) -> bool:
        """Whether the attempt's content was erased together with the event."""
        return not self.request_head


@dataclass(frozen=True, slots=True)
class EndpointFilter:
    """Filter for a list of endpoints.

    For each field that is a tuple, an endpoint must match one of the values. An empty tuple matches all endpoints.
    """

    states: tuple[EndpointState, ...] = ()
    failing: bool = False
    """Whether failing endpoints match, in addition to the endpoints in one of `states`."""
    text: str | None = None
    """The whole URL, or a part of the description or of the URL without its query. Case is ignored."""
    cause: str | None = None
    """The cause code of the last failed attempt. Only failing endpoints can match."""
    ids: tuple[bytes, ...] = ()
    patterns: tuple[str, ...] = ()
    """Event types and patterns. The endpoint's subscription must contain one of them."""
    without_patterns: bool = True
    """Whether endpoints that subscribe to all events also match `patterns`."""


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Filter for a list of events. Timestamps are exclusive bounds in Unix ms.

    For each field that is a tuple, an event must match one of the values. An empty tuple matches all events.
    """

    type_seqs: tuple[int, ...] = ()
    created_after: int | None = None
    created_before: int | None = None
    object_id: str | None = None
    ids: tuple[bytes, ...] = ()
    is_test: bool | None = None
    """True for only test events, False for only other events, None for all events."""


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Filter for a list of deliveries. Timestamps are exclusive bounds for event timestamps, in Unix ms.

    For each field that is a tuple, a delivery must match one of the values. An empty tuple matches all deliveries.
    """

    statuses: tuple[Status, ...] = ()
    endpoint_seqs: tuple[int, ...] = ()
    type_seqs: tuple[int, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    """Outcomes of the last attempt."""
    status_codes: tuple[tuple[int, int], ...] = ()
    """Inclusive ranges for the last attempt's status code."""
    object_id: str | None = None
    is_test: bool | None = None
    """True for only test deliveries, False for only other deliveries, None for all deliveries."""
    created_after: int | None = None
    created_before: int | None = None
    ids: tuple[tuple[bytes, bytes], ...] = ()
    """Delivery IDs. Each is a pair: the event's ID, and the last bytes of the endpoint's ID."""


T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class StreamPage(Generic[T]):
    """A page of an endless list, to which new items are added at the end.

    The next page starts after `key`. `more` is true if the next page already has items.
    """

    items: list[T]
    key: tuple[int, ...]
    more: bool
    prev_key: tuple[int, ...] | None = None
    """The key of the previous page. None on the first page."""

    def of(self, items: "list[U]") -> "StreamPage[U]":
        """Return a copy of this page with `items` as its items."""
        return StreamPage(items, self.key, self.more, self.prev_key)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list. In a forward-only list, `prev_key` is always None."""

    items: list[T]
    next_key: tuple[int, ...] | None
    """The key of the next page. None on the last page."""
    prev_key: tuple[int, ...] | None = None
    """The key of the previous page. None on the first page."""

    def of(self, items: "list[U]") -> "Page[U]":
        """Return a copy of this page with `items` as its items."""
        return Page(items, self.next_key, self.prev_key)
