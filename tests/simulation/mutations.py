"""Defects of an engine. The simulation must find each of them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from uplift_server.core.deliveries.health import Health, HealthRule
from uplift_server.core.scheduling.retry_schedule import RetrySchedule
from uplift_server.core.security.signing import Signer
from uplift_server.delivery import request_parts
from uplift_server.delivery.endpoint_cache import LiveEndpoint
from uplift_server.delivery.health.transitions import Transitions
from uplift_server.delivery.sending import attempts

from .clock import HOUR

_delay_ms = RetrySchedule.delay_ms


class LostOutcomes:
    """Some outcomes are not written."""

    def __init__(self) -> None:
        self._calls = 0

    async def settle(self, database: Any, settlements: Sequence[Any], *rest: Any, **named: Any) -> Any:
        self._calls += 1
        if self._calls % 20 == 0:
            return frozenset()
        return await database.settle(settlements, *rest, **named)


class UnfencedSettlements:
    """A process with an old lease writes outcomes."""

    async def settle(self, database: Any, settlements: Sequence[Any], *rest: Any, **named: Any) -> Any:
        fences = {
            (row[0], row[1]): row[2]
            for row in await database.read(
                lambda c: c.exec_driver_sql("SELECT event_seq, endpoint_seq, fence FROM deliveries").all()
            )
        }
        forged = [each._replace(fence=fences.get((each.event_seq, each.endpoint_seq), 0)) for each in settlements]
        return await database.settle(forged, *rest, **named)


class ForgottenDeliveries:
    """An accepted event has deliveries to only two of its endpoints."""

    async def append(self, database: Any, groups: Sequence[Sequence[Any]]) -> Any:
        return await database.append(
            [[each._replace(deliveries=each.deliveries[:2]) for each in group] for group in groups]
        )


class DroppedReleases:
    """A released delivery is never due."""

    async def release(self, database: Any, leases: Sequence[tuple[int, int, int]], *, now: int) -> None:
        await database.release(leases, now=now)
        for event_seq, endpoint_seq, _ in leases:
            condition = f"event_seq = {event_seq} AND endpoint_seq = {endpoint_seq}"
            statement = f"UPDATE deliveries SET due_at = NULL WHERE {condition}"
            await database.write(lambda c: c.exec_driver_sql(statement))  # noqa: B023


class ChangedBodies:
    """The body of a retry differs by a space."""

    async def lease_due(self, database: Any, requests: Sequence[Any], **named: Any) -> Any:
        leased = await database.lease_due(requests, **named)
        for each in leased:
            each.body = each.body.replace(b'"data":', b'"data": ')
        return leased


@contextmanager
def ignored_pauses() -> Iterator[None]:
    """The dispatcher attempts the deliveries of paused endpoints."""
    on = property(lambda self: not self.deleted)
    with patch.object(LiveEndpoint, "takes_deliveries", on), patch.object(attempts, "may_be_sent", lambda **_: True):
        yield


@contextmanager
def early_retries() -> Iterator[None]:
    """Retries start after half of their delay."""

    def delay_ms(self: RetrySchedule, attempts_made: int, draw: float) -> int | None:
        delay = _delay_ms(self, attempts_made, draw)
        return None if delay is None else delay // 2

    with patch.object(RetrySchedule, "delay_ms", delay_ms):
        yield


@contextmanager
def extra_attempts() -> Iterator[None]:
    """A delivery has one attempt more than its schedule allows."""

    def delay_ms(self: RetrySchedule, attempts_made: int, draw: float) -> int | None:
        if attempts_made == len(self.delays_ms) + 1:
            attempts_made -= 1
        return _delay_ms(self, attempts_made, draw)

    with patch.object(RetrySchedule, "delay_ms", delay_ms):
        yield


@contextmanager
def missing_emails() -> Iterator[None]:
    """Warnings are recorded, but no email is sent."""
    with patch.object(Transitions, "_add_emails", lambda *_: None):
        yield


@contextmanager
def hasty_disabling() -> Iterator[None]:
    """An endpoint is disabled an hour after its warning."""

    def disable_at(self: Health, rule: HealthRule) -> int | None:
        del rule
        return None if self.warned_at is None else self.warned_at + HOUR

    with patch.object(Health, "disable_at", disable_at):
        yield


@contextmanager
def single_signatures() -> Iterator[None]:
    """Only one of two secrets signs after a rotation."""
    with patch.object(request_parts, "Signer", lambda live, uplift: Signer(live[:1], uplift)):
        yield


@contextmanager
def _links(kind: Callable[[], Any]) -> Iterator[Any]:
    yield kind()


MUTATIONS: dict[str, tuple[Callable[[], Any], str]] = {
    "lost outcomes": (lambda: _links(LostOutcomes), "sent again|after attempt|successful|attempts"),
    "forgotten deliveries": (lambda: _links(ForgottenDeliveries), "lost|no attempt|overtakes"),
    "dropped releases": (lambda: _links(DroppedReleases), "at the end|not ended|due since|no attempt"),
    "changed bodies": (lambda: _links(ChangedBodies), "the data differ"),
    "ignored pauses": (ignored_pauses, "paused|expired"),
    "early retries": (early_retries, "early"),
    "extra attempts": (extra_attempts, "more than the schedule"),
    "missing emails": (missing_emails, "warning email"),
    "hasty disabling": (hasty_disabling, "was disabled"),
    "single signatures": (single_signatures, "does not verify"),
}
"""The context manager of each defect, and a pattern of the violations by which the simulation finds it."""
