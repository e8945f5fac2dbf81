"""Email outbox: emails are sent once and retried on schedule, and emails that finally fail have a reason."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs
from tests.delivery.world import START, VirtualClock
from tests.engines import Place
from tests.logs import without_slow_reads
from tests.mail.examples import LINK_KEY, PUBLIC_URL, example
from tests.mail.smtp_server import SmtpStub, silent_port

from uplift_server.core.people.mail_settings import Mailbox, parse_mail_server
from uplift_server.core.people.notifications import NotificationKind
from uplift_server.delivery.shards import LocalShards
from uplift_server.mail.email_values import format_time
from uplift_server.mail.outbox import BATCH_SIZE, POLL_INTERVAL_MS, Outbox
from uplift_server.mail.smtp import SmtpServer
from uplift_server.store import outbox
from uplift_server.store.contract import Database
from uplift_server.store.errors import Unavailable
from uplift_server.store.schema import notices as table

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
COACH, DATA = "coach@rapids.example", "data@rapids.example"


class OutboxSetup:
    """Database with notifications, and outboxes that send them to a stub server."""

    def __init__(self, place: Place, smtp_server: SmtpStub) -> None:
        self.clock = VirtualClock()
        self.smtp_server = smtp_server
        self._place = place
        self._numbers = itertools.count(1)
        self.database: Database

    async def open(self) -> None:
        self._place.prepare(now_ms=START)
        self.database = self._place.database()
        await self.database.open()

    async def add(
        self, *recipients: str, kind: NotificationKind = NotificationKind.ENDPOINT_WARNED, **facts: Any
    ) -> None:
        """Add notifications in a transaction."""
        ids = [next(self._numbers).to_bytes(16, "big") for _ in recipients]
        await self.database.write(
            lambda c: outbox.add(
                c,
                kind,
                account_seq=1,
                endpoint_seq=1,
                recipients=list(zip(ids, recipients, strict=True)),
                facts=example(kind, **facts).facts,
                now=self.clock.now,
            )
        )

    def outbox(self, *, seconds: float = 5, port: int | None = None) -> Outbox:
        server = parse_mail_server(f"smtp://127.0.0.1:{port or self.smtp_server.port}")
        relay = SmtpServer(server, own_name="hooks.uplift.example", exchange_seconds=seconds)
        sender = Mailbox("Uplift Webhooks", "webhooks@uplift.example")
        return Outbox(
            self.database, LocalShards(), self.clock, relay, sender=sender, public_url=PUBLIC_URL, link_key=LINK_KEY
        )

    async def rows(self) -> list[Any]:
        """All stored notifications."""
        return await self.database.read(lambda c: list(c.execute(sa.select(table).order_by(table.c.seq))))

    @property
    def delivered(self) -> list[str]:
        return [each.recipient for each in self.smtp_server.received]


@pytest.fixture
async def outbox_setup(place: Place, smtp_server: SmtpStub) -> AsyncIterator[OutboxSetup]:
    outbox_setup = OutboxSetup(place, smtp_server)
    await outbox_setup.open()
    yield outbox_setup
    await outbox_setup.database.close()


async def wait_until(condition: Any) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", NotificationKind)
async def test_each_contact_gets_one_message_with_both_bodies(
    outbox_setup: OutboxSetup, kind: NotificationKind
) -> None:
    outbox_setup.smtp_server.open()
    await outbox_setup.add(COACH, DATA, kind=kind)
    outbox = outbox_setup.outbox()
    assert await outbox.send_due()
    assert not await outbox.send_due()
    assert sorted(outbox_setup.delivered) == [COACH, DATA]
    first, second = outbox_setup.smtp_server.received
    assert first.message["Message-ID"] != second.message["Message-ID"]
    for received in (first, second):
        assert received.sender == "webhooks@uplift.example"
        assert received.message["To"] == received.recipient
        assert f"{PUBLIC_URL}" in received.text
        assert f"{PUBLIC_URL}" in received.html
    assert outbox_setup.smtp_server.commands.count("EHLO") == 1
    for row in await outbox_setup.rows():
        assert (row.sent_at, row.due_at, row.attempts_made, row.last_error) == (START, None, 1, None)


async def test_without_due_emails_there_is_no_connection(outbox_setup: OutboxSetup) -> None:
    outbox_setup.smtp_server.open()
    assert not await outbox_setup.outbox().send_due()
    assert outbox_setup.smtp_server.commands == []


async def test_many_emails_are_sent_in_batches(outbox_setup: OutboxSetup) -> None:
    outbox_setup.smtp_server.open()
    await outbox_setup.add(*(f"n{number}@rapids.example" for number in range(BATCH_SIZE + 3)))
    outbox = outbox_setup.outbox()
    await outbox.send_due()
    assert len(outbox_setup.delivered) == BATCH_SIZE
    await outbox.send_due()
    assert len(set(outbox_setup.delivered)) == len(outbox_setup.delivered) == BATCH_SIZE + 3


async def test_temporary_failures_are_retried_for_three_days(
    outbox_setup: OutboxSetup,
) -> None:
    outbox_setup.smtp_server.reject_recipient = lambda _: "450 mailbox busy"
    outbox_setup.smtp_server.open()
    await outbox_setup.add(COACH)
    outbox = outbox_setup.outbox()
    attempts: list[int] = []
    with capture_logs() as logs:
        while (await outbox_setup.rows())[0].due_at is not None:
            outbox_setup.clock.now = (await outbox_setup.rows())[0].due_at
            # One millisecond earlier, no email is due.
            outbox_setup.clock.now -= 1
            assert not attempts or not await outbox.send_due()
            outbox_setup.clock.now += 1
            assert await outbox.send_due()
            attempts.append(outbox_setup.clock.now - START)
    assert attempts[:6] == [0, MINUTE, 6 * MINUTE, 36 * MINUTE, 156 * MINUTE, 516 * MINUTE]
    assert attempts[-1] == 3 * DAY
    assert all(later - earlier <= 12 * HOUR for earlier, later in itertools.pairwise(attempts))
    (row,) = await outbox_setup.rows()
    assert (row.sent_at, row.attempts_made) == (None, len(attempts))
    assert "450 mailbox busy" in row.last_error
    (given_up,) = [each for each in logs if each["log_level"] == "error"]
    assert "450 mailbox busy" in given_up["cause"]
    assert outbox_setup.delivered == []


async def test_a_retry_can_succeed(outbox_setup: OutboxSetup) -> None:
    outbox_setup.smtp_server.reject_message = lambda recipient: "451 later" if recipient == COACH else None
    outbox_setup.smtp_server.open()
    await outbox_setup.add(COACH, DATA)
    outbox = outbox_setup.outbox()
    await outbox.send_due()
    assert outbox_setup.delivered == [DATA]
    outbox_setup.smtp_server.reject_message = lambda _: None
    assert not await outbox.send_due()
    outbox_setup.clock.now += MINUTE
    await outbox.send_due()
    assert outbox_setup.delivered == [DATA, COACH]
    first, second = await outbox_setup.rows()
    assert (first.sent_at, first.attempts_made, first.last_error) == (START + MINUTE, 2, None)
    assert (second.sent_at, second.attempts_made) == (START, 1)


async def test_a_permanent_failure_does_not_affect_others(outbox_setup: OutboxSetup) -> None:
    outbox_setup.smtp_server.reject_recipient = lambda recipient: "550 unknown user" if recipient == COACH else None
    outbox_setup.smtp_server.open()
    await outbox_setup.add(COACH, DATA)
    outbox = outbox_setup.outbox()
    with capture_logs() as logs:
        await outbox.send_due()
    outbox_setup.clock.now += DAY
    assert not await outbox.send_due()
    assert outbox_setup.delivered == [DATA]
    failed = (await outbox_setup.rows())[0]
    assert (failed.sent_at, failed.due_at, failed.attempts_made) == (None, None, 1)
    assert "550 unknown user" in failed.last_error
    assert [each["log_level"] for each in logs if each["event"].startswith("email")] == ["error", "info"]


async def test_an_unreachable_server_delays_all_emails_with_one_log_line(outbox_setup: OutboxSetup) -> None:
    await outbox_setup.add(COACH, DATA)
    with capture_logs() as logs:
        await outbox_setup.outbox(port=1).send_due()
    assert [row.due_at for row in await outbox_setup.rows()] == [START + MINUTE] * 2
    (warning,) = without_slow_reads(logs)
    assert (warning["log_level"], warning["emails"]) == ("warning", 2)
    assert "connection refused" in warning["cause"]
    outbox_setup.smtp_server.open()
    outbox_setup.clock.now += MINUTE
    await outbox_setup.outbox().send_due()
    assert sorted(outbox_setup.delivered) == [COACH, DATA]


async def test_a_long_downtime_is_followed_by_one_attempt(outbox_setup: OutboxSetup) -> None:
    await outbox_setup.add(COACH)
    outbox_setup.clock.now += 10 * DAY
    await outbox_setup.outbox(port=1).send_due()
    (row,) = await outbox_setup.rows()
    assert (row.due_at, row.attempts_made) == (None, 1)
    await outbox_setup.add(COACH)
    outbox_setup.clock.now += 10 * DAY
    outbox_setup.smtp_server.open()
    await outbox_setup.outbox().send_due()
    assert outbox_setup.delivered == [COACH]


async def test_a_late_warning_states_a_later_disable_time(outbox_setup: OutboxSetup) -> None:
    outbox_setup.smtp_server.open()
    await outbox_setup.add(COACH, disable_at=START + 2 * DAY)
    outbox_setup.clock.now += 3 * DAY
    await outbox_setup.outbox().send_due()
    [received] = outbox_setup.smtp_server.received
    text = " ".join(received.text.split())
    assert f"On {format_time(START + 5 * DAY)}, Uplift Webhooks will disable the endpoint" in text
    assert format_time(START + 2 * DAY) not in text


@pytest.mark.parametrize("step", ["MAIL", "DATA"])
async def test_a_timeout_is_followed_by_a_new_connection(outbox_setup: OutboxSetup, step: str) -> None:
    outbox_setup.smtp_server.hang_at = step
    outbox_setup.smtp_server.open()
    await outbox_setup.add(COACH, DATA)
    outbox = outbox_setup.outbox(seconds=0.3)
    await outbox.send_due()
    assert [row.attempts_made for row in await outbox_setup.rows()] == [1, 0]
    outbox_setup.smtp_server.hang_at = None
    await outbox.send_due()
    assert outbox_setup.delivered == [DATA]


async def test_a_failed_rendering_does_not_affect_others(
    outbox_setup: OutboxSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox_setup.smtp_server.open()
    await outbox_setup.add(COACH, kind=NotificationKind.ENDPOINT_WARNED)
    await outbox_setup.add(DATA, kind=NotificationKind.ENDPOINT_RECOVERED)
    monkeypatch.delitem(
        __import__("uplift_server.mail.emails", fromlist=["_WORDING"])._WORDING, NotificationKind.ENDPOINT_WARNED
    )
    with capture_logs() as logs:
        await outbox_setup.outbox().send_due()
    assert outbox_setup.delivered == [DATA]
    assert "internal error" in (await outbox_setup.rows())[0].last_error
    assert without_slow_reads(logs)[0]["exc_info"]


async def test_emails_without_stored_results_are_not_sent_twice(
    outbox_setup: OutboxSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox_setup.smtp_server.open()
    await outbox_setup.add(COACH)
    outbox = outbox_setup.outbox()
    attempts = 0

    async def fail(_body: object) -> None:
        nonlocal attempts
        attempts += 1
        raise Unavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(outbox_setup.database, "write", fail)
        for _ in range(3):
            with pytest.raises(Unavailable):
                await outbox.send_due()
    assert (len(outbox_setup.delivered), attempts) == (1, 3)
    assert not await outbox.send_due()
    assert (await outbox_setup.rows())[0].sent_at == START
    assert outbox_setup.delivered == [COACH]


async def test_only_unsent_emails_are_sent_after_a_restart(outbox_setup: OutboxSetup) -> None:
    outbox_setup.smtp_server.reject_recipient = lambda recipient: "451 later" if recipient == DATA else None
    outbox_setup.smtp_server.open()
    await outbox_setup.add(COACH, DATA)
    await outbox_setup.outbox().send_due()
    outbox_setup.smtp_server.reject_recipient = lambda _: None
    await outbox_setup.database.close()
    await outbox_setup.open()
    outbox_setup.clock.now += MINUTE
    await outbox_setup.outbox().send_due()
    assert outbox_setup.delivered == [COACH, DATA]


@contextlib.asynccontextmanager
async def running(outbox: Outbox) -> AsyncIterator[None]:
    outbox.start()
    yield
    await outbox.stop()


async def test_the_loop_polls_every_two_seconds(outbox_setup: OutboxSetup) -> None:
    outbox_setup.smtp_server.open()
    async with running(outbox_setup.outbox()):
        await wait_until(lambda: outbox_setup.clock.waiting)
        await outbox_setup.add(COACH)
        outbox_setup.clock.now += POLL_INTERVAL_MS - 1
        assert outbox_setup.delivered == []
        outbox_setup.clock.fire()
        await wait_until(lambda: outbox_setup.delivered == [COACH])
    assert (await outbox_setup.rows())[0].sent_at is not None


async def test_the_loop_continues_after_errors(outbox_setup: OutboxSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox_setup.smtp_server.open()
    await outbox_setup.add(COACH)
    errors: list[Exception] = [Unavailable("away"), RuntimeError("a defect")]
    due = outbox.due

    def failing(*args: Any, **named: Any) -> Any:
        if errors:
            raise errors.pop(0)
        return due(*args, **named)

    monkeypatch.setattr("uplift_server.store.outbox.due", failing)
    with capture_logs() as logs:
        async with running(outbox_setup.outbox()):
            for left in (1, 0):
                await wait_until(lambda left=left: len(errors) == left and outbox_setup.clock.waiting)
                outbox_setup.clock.fire()
                await asyncio.sleep(0.05)
            await wait_until(lambda: outbox_setup.delivered == [COACH])
    errors_logged = [each["event"] for each in logs if each["log_level"] == "error"]
    assert errors_logged == ["database read failed", "email outbox failed"]


async def test_a_stop_waits_for_the_email_in_flight(outbox_setup: OutboxSetup) -> None:
    outbox_setup.smtp_server.hang_at = "MAIL"
    outbox_setup.smtp_server.open()
    await outbox_setup.add(COACH, DATA)
    outbox = outbox_setup.outbox()
    outbox.start()
    await wait_until(lambda: "MAIL" in outbox_setup.smtp_server.commands)
    stopping = asyncio.ensure_future(outbox.stop())
    await asyncio.sleep(0.1)
    outbox_setup.smtp_server.resume()
    await stopping
    assert outbox_setup.delivered == [COACH]
    assert [row.sent_at for row in await outbox_setup.rows()] == [START, None]
    assert [row.due_at for row in await outbox_setup.rows()] == [None, START]


@pytest.mark.parametrize("step", ["MAIL", "DATA"])
async def test_a_stop_interrupts_a_hanging_email_within_a_second(outbox_setup: OutboxSetup, step: str) -> None:
    outbox_setup.smtp_server.hang_at = step
    outbox_setup.smtp_server.open()
    await outbox_setup.add(COACH)
    outbox = outbox_setup.outbox(seconds=60)
    outbox.start()
    await wait_until(lambda: step in outbox_setup.smtp_server.commands)
    began = time.monotonic()
    with capture_logs() as logs:
        await outbox.stop()
    assert time.monotonic() - began < 10
    (row,) = await outbox_setup.rows()
    assert (row.sent_at, row.due_at, row.attempts_made) == (None, START, 0)
    assert without_slow_reads(logs) == []


async def test_a_stop_does_not_wait_for_a_silent_server(outbox_setup: OutboxSetup) -> None:
    await outbox_setup.add(COACH)
    with silent_port() as port:
        outbox = outbox_setup.outbox(seconds=60, port=port)
        outbox.start()
        await asyncio.sleep(0.2)
        began = time.monotonic()
        await outbox.stop()
        assert time.monotonic() - began < 10
    assert (await outbox_setup.rows())[0].due_at == START


async def test_an_outbox_that_was_not_started_can_stop(outbox_setup: OutboxSetup) -> None:
    await outbox_setup.outbox(port=1).stop()


async def test_a_repeat_after_a_lost_response_is_the_same_message(outbox_setup: OutboxSetup) -> None:
    outbox_setup.smtp_server.hold_response = True
    outbox_setup.smtp_server.open()
    await outbox_setup.add(COACH)
    await outbox_setup.outbox(seconds=0.3).send_due()
    outbox_setup.smtp_server.hold_response = False
    outbox_setup.clock.now += MINUTE
    await outbox_setup.outbox().send_due()
    first, second = outbox_setup.smtp_server.received
    assert first.content == second.content


async def test_a_late_stored_failure_causes_no_repeat(
    outbox_setup: OutboxSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the meantime, another process has taken over the job and sent the email."""
    outbox_setup.smtp_server.reject_recipient = lambda _: "450 mailbox busy"
    outbox_setup.smtp_server.open()
    await outbox_setup.add(COACH)
    slow = outbox_setup.outbox()

    async def fail(_body: object) -> None:
        raise Unavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(outbox_setup.database, "write", fail)
        with pytest.raises(Unavailable):
            await slow.send_due()
    outbox_setup.smtp_server.reject_recipient = lambda _: None
    await outbox_setup.outbox().send_due()
    assert not await slow.send_due()
    outbox_setup.clock.now += HOUR
    assert not await slow.send_due()
    assert outbox_setup.delivered == [COACH]
    (row,) = await outbox_setup.rows()
    assert (row.sent_at, row.due_at, row.last_error) == (START, None, None)


async def test_results_are_stored_after_the_job_has_moved(
    outbox_setup: OutboxSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox_setup.smtp_server.open()
    await outbox_setup.add(COACH)
    outbox = outbox_setup.outbox()

    async def fail(_body: object) -> None:
        monkeypatch.setattr(LocalShards, "holds", lambda _self, _job: False)
        raise Unavailable("away")

    async with running(outbox):
        with monkeypatch.context() as patch:
            patch.setattr(outbox_setup.database, "write", fail)
            await wait_until(lambda: outbox_setup.delivered == [COACH] and outbox_setup.clock.waiting)
        assert (await outbox_setup.rows())[0].sent_at is None
        outbox_setup.clock.fire()
        async with asyncio.timeout(10):
            while (await outbox_setup.rows())[0].sent_at != START:
                await asyncio.sleep(0.01)
