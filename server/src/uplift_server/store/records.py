"""Records of the store, as plain values. The records of the hot path are in `store.hot_records`."""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from uplift_server.core.deliveries.health import Health
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.endpoint_settings import DEFAULTS, EndpointSettings
from uplift_server.core.lifecycle import FailedReason, Status, Trigger
from uplift_server.core.named_codes import NamedCode
from uplift_server.core.security.rights import Role
from uplift_server.core.security.secrets import SecretPair


class EndpointState(NamedCode):
    """The states of an endpoint, which determine whether it receives deliveries.

    The store saves the number of the state.
    """

    ENABLED = 0
    PAUSED = 1
    DISABLED = 2


class DisabledReason(NamedCode):
    """The reason why the server or an operator disabled an endpoint."""

    FAILING = 0
    GONE = 1
    OPERATOR = 2


class HeldAction(NamedCode):
    """The action for held deliveries of an enabled endpoint. The server executes it in batches."""

    SEND = 0
    DROP = 1
    KEEP = 2


@dataclass(frozen=True, slots=True)
class Account:
    """An account."""

    seq: int
    id: bytes
    name: str
    contact_emails: tuple[str, ...]
    created_at: int
    updated_at: int
    uid: str | None = None
    """The operator's own ID of the account."""
    metadata: str | None = None
    """The metadata: a JSON object of strings. None if it is empty."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key of an account, or of an operator if `account_seq` is None, without its text."""

    seq: int
    id: bytes
    account_seq: int | None
    name: str
    digest: bytes
    ends_with: str
    """The last characters of the key, so that people recognize it."""
    scopes: frozenset[str]
    created_at: int
    expires_at: int | None = None
    """The time when the key stops working (Unix ms). None if it does not expire."""


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """A service key without its text. Within its scopes, the key acts for all accounts."""

    seq: int
    id: bytes
    name: str
    digest: bytes
    ends_with: str
    """The last characters of the key, so that people recognize it."""
    scopes: frozenset[str]
    created_at: int
    expires_at: int | None
    """The time when the key stops working (Unix ms). None if it does not expire."""


@dataclass(frozen=True, slots=True)
class Person:
    """A person who signs in to the dashboard."""

    seq: int
    id: bytes
    email: str | None
    """The email, in lower case. None for a portal guest."""
    name: str
    password_hash: str | None = field(repr=False)
    """The hash of the password. None if the person signs in only with portal links or single sign-on."""
    proved: bool
    """Whether the email is verified: by an emailed link, or by the operator."""
    created_at: int

    @property
    def title(self) -> str:
        """The name and email to show to other people."""
        return self.name if self.email in (None, self.name) else f"{self.name} <{self.email}>"


@dataclass(frozen=True, slots=True)
class SecondFactor:
    """The authenticator app of a person. Times are Unix ms."""

    person_id: bytes
    totp_secret: bytes = field(repr=False)
    """The encrypted key of the authenticator app."""
    last_step: int
    """The time step of the last used code. Only codes of later time steps are valid."""
    created_at: int


@dataclass(frozen=True, slots=True)
class Member:
    """A person as a member of an account."""

    seq: int
    id: bytes
    account_seq: int
    role: Role
    created_at: int
    person: Person
    has_identity: bool = False
    """Whether the person has used single sign-on."""
    has_second_factor: bool = False
    """Whether sign-in with the password requires a code of the authenticator app."""


@dataclass(frozen=True, slots=True)
class Session:
    """A dashboard session of a person, or of an operator if `person_seq` is None. Timestamps are Unix ms."""

    digest: bytes
    person_seq: int | None
    account_seq: int | None
    """For a session of a portal link: the only account that the session can access."""
    key_digest: bytes | None
    """For an operator: the digest of the key whose revocation ends the session. After single sign-on, it is the digest
    of the settings that make the person an operator.
    """
    created_at: int
    seen_at: int
    confirmed_at: int | None
    ends_at: int
    is_read_only: bool = False
    """Whether the operator can only read."""
    subject: str | None = None
    """After single sign-on: the ID of the person at the identity provider."""
    operator_name: str | None = None
    """After single sign-on: the name of an operator."""


@dataclass(frozen=True, slots=True)
class Link:
    """An unused one-time link."""

    id: bytes
    account_seq: int | None
    """The account that the link opens. None for a link of an operator."""
    email: str | None
    role: Role
    """The role of a new member."""
    key_digest: bytes | None
    """For an operator: the digest of the key that created the link."""
    expires_at: int
    is_read_only: bool = False
    """Whether the operator who uses the link can only read."""


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
    """Whether the link verifies the email: true if the server emailed the link, or if the operator handed it over."""
    created_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class EventType:
    """An event type of the catalog. `schema` and `example` describe `data` as JSON strings."""

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


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A URL with its subscription, encrypted secrets, settings and health."""

    seq: int
    id: bytes
    account_seq: int
    url: str
    description: str
    event_types: tuple[str, ...]
    secret: bytes = field(repr=False)
    secret_created_at: int
    headers: bytes | None = field(repr=False)
    state: EndpointState
    disabled_reason: DisabledReason | None
    consecutive_failures: int
    failing_since: int | None
    last_success_at: int | None
    last_failure_at: int | None
    last_outcome: Outcome | None
    created_at: int
    updated_at: int
    previous_secret: bytes | None = field(default=None, repr=False)
    """The encrypted old secret. The server signs with both secrets until `previous_expires_at`."""
    previous_expires_at: int | None = None
    uplift_header_new: bool = False
    """Whether x-uplift-signature-256 uses `secret` while `previous_secret` is active."""
    excused_ms: int = 0
    warned_at: int | None = None
    state_since: int | None = None
    held_action: HeldAction | None = None
    """The action for held deliveries of an enabled endpoint. The action applies to deliveries that were held when the
    action was set. The server sends all other held deliveries."""
    held_through: int | None = None
    """The number of the last event to which `held_action` applies."""
    last_status_code: int | None = None
    last_error: str | None = None
    last_location: str | None = None
    probe_at: int | None = None
    tested_at: int | None = None
    """Time of the last test event. The cache can have an earlier value."""
    verified_at: int | None = None
    """The time when the receiver rejected a wrong signature and accepted a valid one.

    The cache can have an earlier value.
    """
    uid: str | None = None
    """The operator's own ID of the endpoint, unique in the account."""
    metadata: str | None = None
    """The metadata: a JSON object of strings. None if it is empty."""
    filter: str | None = None
    """The filter: a JSON object with the pattern that an event's data must match. None matches all events."""
    auth: bytes | None = field(default=None, repr=False)
    """The encrypted authentication. Each update results in different bytes, even if the authentication does not
    change."""
    certificate_expires_at: int | None = None
    certificate_warned_at: int | None = None
    """Time of the last warning about the expiry of the client certificate. The cache can have an earlier value."""
    settings: EndpointSettings = DEFAULTS

    @property
    def secrets(self) -> SecretPair[bytes]:
        """The current and the old secret, encrypted."""
        return SecretPair(
            self.secret,
            self.secret_created_at,
            self.previous_secret,
            self.previous_expires_at,
            self.uplift_header_new,
        )

    @property
    def health(self) -> Health:
        """The health of the endpoint, as the database stores it."""
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
    """An accepted event. Lists omit the body, unless the caller requests it."""

    seq: int
    id: bytes
    account_seq: int
    account_id: bytes
    type: str
    created_at: int
    expires_at: int | None
    api_version: str
    deliveries: dict[Status, int]
    """The number of deliveries by status. Statuses without deliveries are absent."""
    object_id: str | None = None
    is_test: bool = False
    body: bytes | None = None
    """The body in JSON. None in lists without bodies, and if the event is erased."""
    erased_at: int | None = None
    ordering_key: str | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """The delivery of one event to one endpoint."""

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
    """The time when the event was erased."""
    is_test: bool = False
    order_group: int | None = None
    """The order group. The server sends the deliveries of a group in the order of their events. None if the delivery is
    not ordered."""
    blocked_by: str | None = None
    """The ID of the delivery that a blocked delivery waits for."""

    @property
    def is_blocked(self) -> bool:
        """Whether the delivery waits for another delivery of its order group."""
        return self.status is Status.PENDING and self.due_at is None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a delivery."""

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
        """Whether the request and the response were erased with the event."""
        return not self.request_head


@dataclass(frozen=True, slots=True)
class EndpointFilter:
    """Filter for a list of endpoints. An endpoint matches one value of each tuple. An empty tuple means all."""

    states: tuple[EndpointState, ...] = ()
    failing: bool = False
    """Whether to list failing endpoints, in addition to endpoints in one of `states`."""
    text: str | None = None
    """Text to find in the URL without its query, or in the description. Case is ignored."""
    cause: str | None = None
    """The cause (a code) of the last failed attempt. Only failing endpoints match."""
    ids: tuple[bytes, ...] = ()
    patterns: tuple[str, ...] = ()
    """Only endpoints with one of these event types or patterns in their subscription match."""
    without_patterns: bool = True
    """Whether endpoints whose subscription has no patterns also match `patterns`."""


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Filter for a list of events. Timestamps are exclusive, in Unix ms.

    An event matches one value of each tuple. An empty tuple means all.
    """

    type_seqs: tuple[int, ...] = ()
    created_after: int | None = None
    created_before: int | None = None
    object_id: str | None = None
    ids: tuple[bytes, ...] = ()
    is_test: bool | None = None
    """Whether to list only test events (True) or only other events (False)."""


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Filter for a list of deliveries. The timestamps limit the time of the events, exclusive, in Unix ms.

    A delivery matches one value of each tuple. An empty tuple means all.
    """

    statuses: tuple[Status, ...] = ()
    endpoint_seqs: tuple[int, ...] = ()
    type_seqs: tuple[int, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    """Outcomes of the last attempt."""
    status_codes: tuple[tuple[int, int], ...] = ()
    """Inclusive ranges of status codes of the last attempt."""
    object_id: str | None = None
    is_test: bool | None = None
    """Whether to list only test deliveries (True) or only other deliveries (False)."""
    created_after: int | None = None
    created_before: int | None = None
    ids: tuple[tuple[bytes, bytes], ...] = ()
    """IDs of deliveries, each as the ID of the event and the last bytes of the endpoint's ID."""


T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class StreamPage(Generic[T]):
    """A page of an endless list. The next page starts after `key`.

    `more` states whether the next page has items now.
    """

    items: list[T]
    key: tuple[int, ...]
    more: bool
    prev_key: tuple[int, ...] | None = None
    """The key of the previous page; None on the first page."""

    def of(self, items: "list[U]") -> "StreamPage[U]":
        """Return a copy of the page with `items` instead of its own items."""
        return StreamPage(items, self.key, self.more, self.prev_key)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list. Lists that only go forward have no `prev_key`."""

    items: list[T]
    next_key: tuple[int, ...] | None
    """The key of the next page; None on the last page."""
    prev_key: tuple[int, ...] | None = None
    """The key of the previous page; None on the first page."""

    def of(self, items: "list[U]") -> "Page[U]":
        """Return a copy of the page with `items` instead of its own items."""
        return Page(items, self.next_key, self.prev_key)
