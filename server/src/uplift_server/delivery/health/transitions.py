"""The health transitions of an endpoint (warned, disabled, recovered), and warnings about its client certificate.

Each transition is one transaction that stores the endpoint's health, an audit log entry, an operational event, and an
email to each contact of the account. Therefore, the server sends each notification once, even if the process is killed.
The server delays an email and adds other endpoints of the account that have the same transition. Therefore, one broken
receiver causes only one email.
"""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TypeVar

import structlog
from msgspec import structs

from uplift_server.core import ids
from uplift_server.core.deliveries.causes import cause_of
from uplift_server.core.deliveries.health import Health, HealthRule
from uplift_server.core.deliveries.operational_events import Subject, endpoint_facts
from uplift_server.core.events.operational import OperationalKind
from uplift_server.core.people.audit import SYSTEM, AuditEntry
from uplift_server.core.people.notifications import NotificationKind
from uplift_server.core.timestamps import format_optional_timestamp
from uplift_server.delivery.endpoint_cache import EndpointCache, LiveEndpoint
from uplift_server.delivery.health.endpoint_changes import EndpointChanges
from uplift_server.delivery.ports import Clock, Shards
from uplift_server.delivery.sending.settler import health_row
from uplift_server.store import accounts, audit, endpoints, health, operational_events, outbox, processes
from uplift_server.store.contract import Database, Transaction
from uplift_server.store.operational_events import OperationalEvent
from uplift_server.store.records import Account, DisabledReason, Endpoint, EndpointState

GROUP_MS_MAX: Final = 30_000
"""The maximum delay of a warning email, in ms.

During the delay, other endpoints of the account are added to the email.
"""
RECOVERED_GROUP_MS_MAX: Final = 300_000
"""The maximum delay of a recovery email, in ms.

During the delay, other endpoints of the account are added to the email. After a receiver recovers, circuit breakers
probe all its endpoints within 5 minutes.
"""

R = TypeVar("R")

_log = structlog.get_logger()


class _Subject(NamedTuple):
    """The fields of an endpoint that a transaction on another thread needs."""

    endpoint_seq: int
    endpoint: str
    """The public ID of the endpoint."""
    account: Account
    facts: dict[str, object]
    """The values that every notification about the endpoint contains."""
    event_subject: Subject


class Transitions:
    """Stores health transitions, and then applies them to the cache and the deliveries.

    If a method raises Unavailable, it has not changed the cache or the deliveries, but the database may have stored the
    transition.
    """

    def __init__(
        self,
        database: Database,
        cache: EndpointCache,
        shards: Shards,
        changes: EndpointChanges,
        clock: Clock,
        *,
        rule: HealthRule,
        sends_email: bool,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._database = database
        self._cache = cache
        self._shards = shards
        self._changes = changes
        self._clock = clock
        self._rule = rule
        self._sends_email = sends_email
        self._random_bytes = random_bytes

    async def warn(self, endpoint: LiveEndpoint) -> None:
        """Warn the account's contacts about a failing endpoint before the server disables the endpoint."""
        now, subject = self._clock.now_ms(), self._subject(endpoint)
        row = health_row(endpoint)
        failing_since = endpoint.health.failing_since
        disable_at = endpoint.health._replace(warned_at=now).disable_at(self._rule)
        details = {
            "failing_since": format_optional_timestamp(failing_since),
            "disable_at": format_optional_timestamp(disable_at),
        }
        facts = subject.facts | _failing_facts(endpoint.health) | {"disable_at": disable_at}
        event = self._event(OperationalKind.ENDPOINT_WARNED, subject, endpoint.health, now, disable_at=disable_at)

        def warn(connection: Transaction) -> int | None:
            self._lock_emails(connection, subject)
            # An earlier commit may have succeeded although its response was lost.
            stored_at = health.warned_at(connection, subject.endpoint_seq)
            if stored_at is not None and failing_since is not None and stored_at >= failing_since:
                return stored_at
            if not health.set_warned_at(connection, subject.endpoint_seq, now):
                return None
            health.save(connection, [row])
            self._add_audit_entry(connection, subject, "endpoint.warned", details, now)
            self._add_emails(connection, subject, NotificationKind.ENDPOINT_WARNED, facts, now)
            operational_events.add(connection, event)
            return now

        warned_at = await self._write(warn)
        if warned_at is not None:
            endpoint.health = endpoint.health._replace(warned_at=warned_at)
            self._log(endpoint, "endpoint warned", details)

    async def disable(self, endpoint: LiveEndpoint, reason: DisabledReason) -> bool:
        """Disable an endpoint, and notify the account's contacts.

        If `reason` is FAILING, and the warning email is unsent or was sent late, do not disable the endpoint and return
        False. A late warning counts from the time when the last of its emails was sent.
        """
        now, subject = self._clock.now_ms(), self._subject(endpoint)
        row = health_row(endpoint)
        failing_since, warned_at = endpoint.health.failing_since, endpoint.health.warned_at
        enabled_since = endpoint.record.state_since
        details = {"reason": reason.text, "failing_since": format_optional_timestamp(failing_since)}
        facts = subject.facts | _failing_facts(endpoint.health) | {"reason": reason.text}
        event = self._event(OperationalKind.ENDPOINT_DISABLED, subject, endpoint.health, now, reason=reason)

        def disable(connection: Transaction) -> Endpoint | int | None:
            self._lock_emails(connection, subject)
            if self._sends_email and warned_at and failing_since and reason is DisabledReason.FAILING:
                emails = subject.account.seq, subject.endpoint, NotificationKind.ENDPOINT_WARNED
                until = warned_at + outbox.GROUP_MARGIN_MS
                if outbox.is_unsent(connection, *emails, since=failing_since, until=until):
                    return warned_at
                sent_at = outbox.sent_late_at(connection, *emails, since=failing_since, until=until)
                if sent_at is not None and sent_at > warned_at:
                    # Another process may have reset the health.
                    if health.warned_at(connection, subject.endpoint_seq) is not None:
                        health.set_warned_at(connection, subject.endpoint_seq, sent_at)
                    return sent_at
            record = health.disable(connection, subject.endpoint_seq, reason, since=enabled_since, now=now)
            if record is None:
                return None
            health.save(connection, [row])
            self._add_audit_entry(connection, subject, "endpoint.disabled", details, now)
            self._add_emails(connection, subject, NotificationKind.ENDPOINT_DISABLED, facts, now)
            outbox.withdraw_warnings(connection, subject.account.seq, subject.endpoint)
            operational_events.add(connection, event)
            return record

        done = await self._write(disable)
        if isinstance(done, Endpoint):
            if done.seq in self._cache.endpoints:
                self._changes.apply(done)
            self._log(endpoint, "endpoint disabled", details)
        elif done is not None:
            endpoint.health = endpoint.health._replace(warned_at=done)
            return False
        return True

    async def recover(self, endpoint: LiveEndpoint, failed_since: int | None) -> None:
        """Notify the account's contacts that a warned endpoint has recovered.

        `failed_since` is the start of the failure that has ended (Unix ms), or None if unknown.
        """
        now, subject = self._clock.now_ms(), self._subject(endpoint)
        row = health_row(endpoint)
        recovered_at = endpoint.health.last_success_at
        details = {
            "failed_since": format_optional_timestamp(failed_since),
            "recovered_at": format_optional_timestamp(recovered_at),
        }
        was_failing = endpoint.health._replace(failing_since=failed_since)
        event = self._event(OperationalKind.ENDPOINT_RECOVERED, subject, was_failing, now, recovered_at=recovered_at)

        def recover(connection: Transaction) -> bool:
            self._lock_emails(connection, subject)
            if health.warned_at(connection, subject.endpoint_seq) is None:
                return True  # an earlier commit succeeded, but its response was lost
            if not health.set_warned_at(connection, subject.endpoint_seq, None):
                return False
            health.save(connection, [row])
            self._add_audit_entry(connection, subject, "endpoint.recovered", details, now)
            facts = subject.facts | {"failed_since": failed_since, "recovered_at": recovered_at}
            self._add_emails(connection, subject, NotificationKind.ENDPOINT_RECOVERED, facts, now)
            outbox.withdraw_warnings(connection, subject.account.seq, subject.endpoint)
            operational_events.add(connection, event)
            return True

        if await self._write(recover):
            endpoint.health = endpoint.health._replace(warned_at=None)
            self._log(endpoint, "endpoint recovered", details)

    async def warn_about_certificate(self, endpoint: LiveEndpoint) -> None:
        """Warn the account's contacts if the endpoint's client certificate expires soon.

        Do nothing if no warning is due.
        """
        now, subject = self._clock.now_ms(), self._subject(endpoint)

        def warn(connection: Transaction) -> tuple[Endpoint | None, bool]:
            self._lock_emails(connection, subject)
            record, is_due = endpoints.note_certificate_warning(connection, subject.endpoint_seq, now=now)
            if record is not None and is_due:
                expires_at = record.certificate_expires_at
                details = {"expires_at": format_optional_timestamp(expires_at)}
                self._add_audit_entry(connection, subject, "endpoint.certificate_expiring", details, now)
                facts = subject.facts | {"expires_at": expires_at}
                self._add_emails(connection, subject, NotificationKind.CERTIFICATE_EXPIRING, facts, now)
            return record, is_due

        record, is_due = await self._write(warn)
        if record is not None:
            endpoint.record = structs.replace(endpoint.record, certificate_warned_at=record.certificate_warned_at)
            if is_due:
                expires_at = format_optional_timestamp(record.certificate_expires_at)
                self._log(endpoint, "client certificate expiring", {"expires_at": expires_at})

    async def _write(self, body: Callable[[Transaction], R]) -> R:
        # An evicted process must not act on its outdated view of an endpoint.
        return await self._database.write(processes.unless_evicted(self._shards.membership_id, body))

    def _subject(self, endpoint: LiveEndpoint) -> _Subject:
        record = endpoint.record
        account = self._cache.accounts[record.account_seq]
        facts: dict[str, object] = {
            "endpoint": endpoint.id_text,
            "url": record.url,
            "description": record.description,
            "account": account.name,
        }
        about = Subject(
            endpoint.id_text,
            record.uid,
            record.url,
            record.description,
            endpoint.account_text,
            account.uid,
            account.name,
        )
        return _Subject(endpoint.seq, endpoint.id_text, account, facts, about)

    def _event(
        self,
        kind: OperationalKind,
        subject: _Subject,
        health: Health,
        now: int,
        *,
        reason: DisabledReason | None = None,
        disable_at: int | None = None,
        recovered_at: int | None = None,
    ) -> OperationalEvent:
        facts = endpoint_facts(
            subject.event_subject,
            state=(EndpointState.ENABLED if reason is None else EndpointState.DISABLED).text,
            disabled_reason=None if reason is None else reason.text,
            failing_since=health.failing_since,
            failed_attempts=health.consecutive_failures,
            cause=cause_of(health),
            disable_at=disable_at,
            recovered_at=recovered_at,
        )
        return OperationalEvent(self._new_id(now), kind, subject.account.seq, subject.endpoint_seq, facts)

    def _add_audit_entry(
        self, connection: Transaction, subject: _Subject, action: str, details: Mapping[str, object], now: int
    ) -> None:
        audit.add(connection, AuditEntry(subject.account.seq, now, SYSTEM, action, subject.endpoint, details))

    def _add_emails(
        self, connection: Transaction, subject: _Subject, kind: NotificationKind, facts: Mapping[str, object], now: int
    ) -> None:
        if not self._sends_email:
            return
        outbox.add_about_endpoint(
            connection,
            kind,
            account_seq=subject.account.seq,
            endpoint_seq=subject.endpoint_seq,
            recipients=[(self._new_id(now), contact) for contact in subject.account.contact_emails],
            facts=facts,
            now=now,
            group_ms=self._group_ms(kind),
        )

    def _lock_emails(self, connection: Transaction, subject: _Subject) -> None:
        """Lock the account, so that two processes do not add separate emails at the same time."""
        if self._sends_email:
            accounts.lock(connection, subject.account.seq)

    def _group_ms(self, kind: NotificationKind) -> int:
        """Return the delay of an email, in ms.

        During the delay, other endpoints of the account are added to the email.
        """
        longest = RECOVERED_GROUP_MS_MAX if kind is NotificationKind.ENDPOINT_RECOVERED else GROUP_MS_MAX
        return min(longest, self._rule.warn_after_ms // 10)

    def _new_id(self, now: int) -> bytes:
        return ids.uuid7(now, self._random_bytes(ids.RANDOM_BYTES))

    def _log(self, endpoint: LiveEndpoint, text: str, details: Mapping[str, object]) -> None:
        _log.warning(text, endpoint=endpoint.id_text, account=endpoint.account_text, **details)


def _failing_facts(health: Health) -> dict[str, object]:
    cause = cause_of(health)
    return {
        "failing_since": health.failing_since,
        "failed_attempts": health.consecutive_failures,
        "cause": cause.cause if cause else "",
        "remedy": cause.remedy if cause else "",
        "response": health.last_response or "",
    }
