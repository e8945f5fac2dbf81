"""What goes into the store and what comes out: plain values, never rows. What hot verbs take: `store.hot_records`."""

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
    """Whether an endpoint takes deliveries. The number is what the store keeps."""

    ENABLED = 0
    PAUSED = 1
    DISABLED = 2


class DisabledReason(NamedCode):
    """Why an endpoint was switched off by us."""

    FAILING = 0
    GONE = 1
    OPERATOR = 2


class HeldAction(NamedCode):
    """What becomes, bit by bit, of the deliveries an enabled endpoint holds."""

    SEND = 0
    DROP = 1
    KEEP = 2


@dataclass(frozen=True, slots=True)
class Account:
    """A tenant."""

    seq: int
    id: bytes
    name: str
    contact_emails: tuple[str, ...]
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key of an account, or of an operator where `account_seq` is None. Its text is not kept."""

    seq: int
    id: bytes
    account_seq: int | None
    name: str
    digest: bytes
    ends_with: str
    """Its last characters, by which people recognise it."""
    scopes: frozenset[str]
    created_at: int


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who signs in to the dashboard."""

    seq: int
    id: bytes
    email: str | None
    """In lower case; None: a guest of portal links."""
    name: str
    password_hash: str | None = field(repr=False)
    """None: comes through portal links only."""
    proved: bool
    """Whether the mail address is known to be this person's: by a link mailed there, or by the operator's word."""
    created_at: int

    @property
    def title(self) -> str:
        """By what others recognise this person: name and mail address."""
        return self.name if self.email in (None, self.name) else f"{self.name} <{self.email}>"


@dataclass(frozen=True, slots=True)
class Member:
    """A person's place in an account."""

    seq: int
    id: bytes
    account_seq: int
    role: Role
    created_at: int
    person: Person


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that is signed in: a person's, or an operator's where there is none. Instants are Unix ms."""

    digest: bytes
    person_seq: int | None
    account_seq: int | None
    """Of a portal link's: the only account it shows."""
    key_digest: bytes | None
    """An operator's: of the key whose end ends it."""
    created_at: int
    seen_at: int
    confirmed_at: int | None
    ends_at: int


@dataclass(frozen=True, slots=True)
class Link:
    """A one-time link that was not opened yet."""

    id: bytes
    account_seq: int | None
    """None: an operator's."""
    email: str | None
    role: Role
    """Of whom is no member yet."""
    key_digest: bytes | None
    """An operator's: of the key it was made with."""
    expires_at: int


@dataclass(frozen=True, slots=True)
class Invitation:
    """Somebody is to become a member of an account, and has not accepted yet."""

    seq: int
    id: bytes
    account_seq: int
    email: str
    role: Role
    invited_by: str
    proves: bool
    """Whether whoever has its link has the mail address: it was mailed there, or the operator handed it over."""
    created_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class EventType:
    """An entry of the catalog. `schema` and `example` describe `data` and are JSON texts."""

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
    """A URL with its subscription, sealed secrets, settings and health."""

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
    """Sealed; signs beside `secret` until `previous_expires_at`."""
    previous_expires_at: int | None = None
    uplift_header_new: bool = False
    """Whether x-uplift-signature-256 follows `secret` while there is a previous one."""
    excused_ms: int = 0
    warned_at: int | None = None
    state_since: int | None = None
    held_action: HeldAction | None = None
    """While it is enabled: what becomes of what it held when that was asked for. All else that it holds is sent."""
    held_through: int | None = None
    """The number of the last event that `held_action` is about."""
    settings: EndpointSettings = DEFAULTS

    @property
    def secrets(self) -> SecretPair[bytes]:
        """Its secrets, sealed."""
        return SecretPair(
            self.secret,
            self.secret_created_at,
            self.previous_secret,
            self.previous_expires_at,
            self.uplift_header_new,
        )

    @property
    def health(self) -> Health:
        """How it fares, as it was stored."""
        return Health(
            self.consecutive_failures,
            self.failing_since,
            self.last_success_at,
            self.last_failure_at,
            self.last_outcome,
            self.excused_ms,
            self.warned_at,
        )


@dataclass(frozen=True, slots=True)
class Event:
    """An accepted event; its body only where it was asked for alone."""

    seq: int
    id: bytes
    account_seq: int
    account_id: bytes
    type: str
    created_at: int
    expires_at: int | None
    api_version: str
    deliveries: dict[Status, int]
    """How many deliveries stand in each status; statuses without one are left out."""
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event owed to one endpoint."""

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


@dataclass(frozen=True, slots=True)
class EndpointFilter:
    """Which endpoints a list shows."""

    state: EndpointState | None = None
    failing: bool = False
    """Whether only those that failed at their last attempt."""
    text: str | None = None
    """What stands in its URL or its description, in letters of any case."""

    @classmethod
    def named(cls, state: str | None, text: str | None) -> "EndpointFilter":
        """By what people call it: a state, or `failing` for enabled ones that fail. Any other name means all."""
        if state == "failing":
            return cls(EndpointState.ENABLED, failing=True, text=text)
        return cls(next((each for each in EndpointState if each.text == state), None), text=text)


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events a list shows. Instants are exclusive, in Unix ms."""

    type_seq: int | None = None
    created_after: int | None = None
    created_before: int | None = None


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Which deliveries a list shows. Instants are those of the events, exclusive, in Unix ms."""

    status: Status | None = None
    endpoint_seq: int | None = None
    type_seq: int | None = None
    created_after: int | None = None
    created_before: int | None = None


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stretch(Generic[T]):
    """A stretch of a list that is followed as it grows: `key` is where to go on, `more` whether to do so now."""

    items: list[T]
    key: tuple[int, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A stretch of a list. `next_key` continues after its last item; None where nothing follows."""

    items: list[T]
    next_key: tuple[int, ...] | None
