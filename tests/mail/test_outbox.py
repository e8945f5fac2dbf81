"""The outbox: emails are sent once, retried in time, and given up with a reason, without effects on deliveries."""

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
from tests.mail.examples import LINK_KEY, PUBLIC_URL, example
from tests.mail.smtp_server import SmtpStub, silence

from uplift_server.core.people.mail_settings import Mailbox, parse_mail_server
from uplift_server.core.people.notifications import NotificationKind
from uplift_server.delivery.shards import LocalShards
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


class Office:
    """A database with notifications, and outboxes that send them to a stub server."""

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
    def arrived(self) -> list[str]:
        return [each.recipient for each in self.smtp_server.received]


@pytest.fixture
async def office(place: Place, smtp_server: SmtpStub) -> AsyncIterator[Office]:
    office = Office(place, smtp_server)
    await office.open()
    yield office
    await office.database.close()


async def until(condition: Any) -> None:
    """Run the loop until a condition holds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", NotificationKind)
async def test_each_contact_gets_one_message_with_both_bodies(office: Office, kind: NotificationKind) -> None:
    office.smtp_server.open()
    await office.add(COACH, DATA, kind=kind)
    outbox = office.outbox()
    assert await outbox.send_due()
    assert not await outbox.send_due()
    assert sorted(office.arrived) == [COACH, DATA]
    first, second = office.smtp_server.received
    assert first.message["Message-ID"] != second.message["Message-ID"]
    for received in (first, second):
        assert received.sender == "webhooks@uplift.example"
        assert received.message["To"] == received.recipient
        assert f"{PUBLIC_URL}" in received.text
        assert f"{PUBLIC_URL}" in received.html
    assert office.smtp_server.said.count("EHLO") == 1
    for row in await office.rows():
        assert (row.sent_at, row.due_at, row.attempts_made, row.last_error) == (START, None, 1, None)


async def test_without_due_emails_there_is_no_connection(office: Office) -> None:
    office.smtp_server.open()
    assert not await office.outbox().send_due()
    assert office.smtp_server.said == []


async def test_many_emails_are_sent_in_batches(office: Office) -> None:
    office.smtp_server.open()
    await office.add(*(f"n{number}@rapids.example" for number in range(BATCH_SIZE + 3)))
    outbox = office.outbox()
    await outbox.send_due()
    assert len(office.arrived) == BATCH_SIZE
    await outbox.send_due()
    assert len(set(office.arrived)) == len(office.arrived) == BATCH_SIZE + 3


async def test_temporary_failures_are_retried_for_three_days(
    office: Office,
) -> None:
    office.smtp_server.refuse_recipient = lambda _: "450 mailbox busy"
    office.smtp_server.open()
    await office.add(COACH)
    outbox = office.outbox()
    tried: list[int] = []
    with capture_logs() as logs:
        while (await office.rows())[0].due_at is not None:
            office.clock.now = (await office.rows())[0].due_at
            # Not earlier.
            office.clock.now -= 1
            assert not tried or not await outbox.send_due()
            office.clock.now += 1
            assert await outbox.send_due()
            tried.append(office.clock.now - START)
    assert tried[:6] == [0, MINUTE, 6 * MINUTE, 36 * MINUTE, 156 * MINUTE, 516 * MINUTE]
    assert tried[-1] == 3 * DAY
    assert all(later - earlier <= 12 * HOUR for earlier, later in itertools.pairwise(tried))
    (row,) = await office.rows()
    assert (row.sent_at, row.attempts_made) == (None, len(tried))
    assert "450 mailbox busy" in row.last_error
    (given_up,) = [each for each in logs if each["log_level"] == "error"]
    assert "450 mailbox busy" in given_up["cause"]
    assert office.arrived == []


async def test_a_retry_can_succeed(office: Office) -> None:
    office.smtp_server.refuse_message = lambda recipient: "451 later" if recipient == COACH else None
    office.smtp_server.open()
    await office.add(COACH, DATA)
    outbox = office.outbox()
    await outbox.send_due()
    assert office.arrived == [DATA]
    office.smtp_server.refuse_message = lambda _: None
    assert not await outbox.send_due()
    office.clock.now += MINUTE
    await outbox.send_due()
    assert office.arrived == [DATA, COACH]
    first, second = await office.rows()
    assert (first.sent_at, first.attempts_made, first.last_error) == (START + MINUTE, 2, None)
    assert (second.sent_at, second.attempts_made) == (START, 1)


async def test_a_permanent_failure_does_not_affect_others(office: Office) -> None:
    office.smtp_server.refuse_recipient = lambda recipient: "550 unknown user" if recipient == COACH else None
    office.smtp_server.open()
    await office.add(COACH, DATA)
    outbox = office.outbox()
    with capture_logs() as logs:
        await outbox.send_due()
    office.clock.now += DAY
    assert not await outbox.send_due()
    assert office.arrived == [DATA]
    failed = (await office.rows())[0]
    assert (failed.sent_at, failed.due_at, failed.attempts_made) == (None, None, 1)
    assert "550 unknown user" in failed.last_error
    assert [each["log_level"] for each in logs] == ["error", "info"]


async def test_an_unreachable_server_delays_all_emails_with_one_log_line(office: Office) -> None:
    await office.add(COACH, DATA)
    with capture_logs() as logs:
        await office.outbox(port=1).send_due()
    assert [row.due_at for row in await office.rows()] == [START + MINUTE] * 2
    (warning,) = logs
    assert (warning["log_level"], warning["emails"]) == ("warning", 2)
    assert "connection refused" in warning["cause"]
    office.smtp_server.open()
    office.clock.now += MINUTE
    await office.outbox().send_due()
    assert sorted(office.arrived) == [COACH, DATA]


async def test_after_a_long_downtime_there_is_one_attempt(office: Office) -> None:
    await office.add(COACH)
    office.clock.now += 10 * DAY
    await office.outbox(port=1).send_due()
    (row,) = await office.rows()
    assert (row.due_at, row.attempts_made) == (None, 1)
    await office.add(COACH)
    office.clock.now += 10 * DAY
    office.smtp_server.open()
    await office.outbox().send_due()
    assert office.arrived == [COACH]


@pytest.mark.parametrize("step", ["MAIL", "DATA"])
async def test_after_a_timeout_the_next_message_has_a_new_connection(office: Office, step: str) -> None:
    office.smtp_server.hang_at = step
    office.smtp_server.open()
    await office.add(COACH, DATA)
    outbox = office.outbox(seconds=0.3)
    await outbox.send_due()
    assert [row.attempts_made for row in await office.rows()] == [1, 0]
    office.smtp_server.hang_at = None
    await outbox.send_due()
    assert office.arrived == [DATA]


async def test_a_failed_rendering_does_not_affect_others(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    office.smtp_server.open()
    await office.add(COACH, kind=NotificationKind.ENDPOINT_WARNED)
    await office.add(DATA, kind=NotificationKind.ENDPOINT_RECOVERED)
    monkeypatch.delitem(
        __import__("uplift_server.mail.emails", fromlist=["_WORDING"])._WORDING, NotificationKind.ENDPOINT_WARNED
    )
    with capture_logs() as logs:
        await office.outbox().send_due()
    assert office.arrived == [DATA]
    assert "internal error" in (await office.rows())[0].last_error
    assert logs[0]["exc_info"]


async def test_without_stored_results_nothing_is_sent_twice(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    office.smtp_server.open()
    await office.add(COACH)
    outbox = office.outbox()
    tried = 0

    async def away(_body: object) -> None:
        nonlocal tried
        tried += 1
        raise Unavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(office.database, "write", away)
        for _ in range(3):
            with pytest.raises(Unavailable):
                await outbox.send_due()
    assert (len(office.arrived), tried) == (1, 3)
    assert not await outbox.send_due()
    assert (await office.rows())[0].sent_at == START
    assert office.arrived == [COACH]


async def test_after_a_restart_only_the_rest_is_sent(office: Office) -> None:
    office.smtp_server.refuse_recipient = lambda recipient: "451 later" if recipient == DATA else None
    office.smtp_server.open()
    await office.add(COACH, DATA)
    await office.outbox().send_due()
    office.smtp_server.refuse_recipient = lambda _: None
    await office.database.close()
    await office.open()
    office.clock.now += MINUTE
    await office.outbox().send_due()
    assert office.arrived == [COACH, DATA]


@contextlib.asynccontextmanager
async def running(outbox: Outbox) -> AsyncIterator[None]:
    outbox.start()
    yield
    await outbox.stop()


async def test_the_loop_polls_every_two_seconds(office: Office) -> None:
    office.smtp_server.open()
    async with running(office.outbox()):
        await until(lambda: office.clock.waiting)
        await office.add(COACH)
        office.clock.now += POLL_INTERVAL_MS - 1
        assert office.arrived == []
        office.clock.fire()
        await until(lambda: office.arrived == [COACH])
    assert (await office.rows())[0].sent_at is not None


async def test_the_loop_continues_after_errors(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    office.smtp_server.open()
    await office.add(COACH)
    errors: list[Exception] = [Unavailable("away"), RuntimeError("a defect")]
    due = outbox.due

    def failing(*args: Any, **named: Any) -> Any:
        if errors:
            raise errors.pop(0)
        return due(*args, **named)

    monkeypatch.setattr("uplift_server.store.outbox.due", failing)
    with capture_logs() as logs:
        async with running(office.outbox()):
            for left in (1, 0):
                await until(lambda left=left: len(errors) == left and office.clock.waiting)
                office.clock.fire()
                await asyncio.sleep(0.05)
            await until(lambda: office.arrived == [COACH])
    errors_logged = [each["event"] for each in logs if each["log_level"] == "error"]
    assert errors_logged == ["database read failed", "outbox failed"]


async def test_a_stop_waits_for_the_email_in_flight(office: Office) -> None:
    office.smtp_server.hang_at = "MAIL"
    office.smtp_server.open()
    await office.add(COACH, DATA)
    outbox = office.outbox()
    outbox.start()
    await until(lambda: "MAIL" in office.smtp_server.said)
    stopping = asyncio.ensure_future(outbox.stop())
    await asyncio.sleep(0.1)
    office.smtp_server.go_on()
    await stopping
    assert office.arrived == [COACH]
    assert [row.sent_at for row in await office.rows()] == [START, None]
    assert [row.due_at for row in await office.rows()] == [None, START]


@pytest.mark.parametrize("step", ["MAIL", "DATA"])
async def test_a_stop_interrupts_a_hanging_email_within_a_second(office: Office, step: str) -> None:
    office.smtp_server.hang_at = step
    office.smtp_server.open()
    await office.add(COACH)
    outbox = office.outbox(seconds=60)
    outbox.start()
    await until(lambda: step in office.smtp_server.said)
    began = time.monotonic()
    with capture_logs() as logs:
        await outbox.stop()
    assert time.monotonic() - began < 10
    (row,) = await office.rows()
    assert (row.sent_at, row.due_at, row.attempts_made) == (None, START, 0)
    assert logs == []


async def test_a_stop_does_not_wait_for_a_silent_server(office: Office) -> None:
    await office.add(COACH)
    with silence() as port:
        outbox = office.outbox(seconds=60, port=port)
        outbox.start()
        await asyncio.sleep(0.2)
        began = time.monotonic()
        await outbox.stop()
        assert time.monotonic() - began < 10
    assert (await office.rows())[0].due_at == START


async def test_an_outbox_that_was_never_started_stops(office: Office) -> None:
    await office.outbox(port=1).stop()


async def test_a_repeat_after_a_lost_response_is_the_same_message(office: Office) -> None:
    office.smtp_server.hold_answer = True
    office.smtp_server.open()
    await office.add(COACH)
    await office.outbox(seconds=0.3).send_due()
    office.smtp_server.hold_answer = False
    office.clock.now += MINUTE
    await office.outbox().send_due()
    first, second = office.smtp_server.received
    assert first.content == second.content


async def test_a_late_stored_failure_causes_no_repeat(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process, which has the job by then, has sent the email."""
    office.smtp_server.refuse_recipient = lambda _: "450 mailbox busy"
    office.smtp_server.open()
    await office.add(COACH)
    slow = office.outbox()

    async def away(_body: object) -> None:
        raise Unavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(office.database, "write", away)
        with pytest.raises(Unavailable):
            await slow.send_due()
    office.smtp_server.refuse_recipient = lambda _: None
    await office.outbox().send_due()
    assert not await slow.send_due()
    office.clock.now += HOUR
    assert not await slow.send_due()
    assert office.arrived == [COACH]
    (row,) = await office.rows()
    assert (row.sent_at, row.due_at, row.last_error) == (START, None, None)


async def test_results_are_stored_after_the_job_moved(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    office.smtp_server.open()
    await office.add(COACH)
    outbox = office.outbox()

    async def away(_body: object) -> None:
        monkeypatch.setattr(LocalShards, "holds", lambda _self, _job: False)
        raise Unavailable("away")

    async with running(outbox):
        with monkeypatch.context() as patch:
            patch.setattr(office.database, "write", away)
            await until(lambda: office.arrived == [COACH] and office.clock.waiting)
        assert (await office.rows())[0].sent_at is None
        office.clock.fire()
        async with asyncio.timeout(10):
            while (await office.rows())[0].sent_at != START:
                await asyncio.sleep(0.01)
