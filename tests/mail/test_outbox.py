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
from tests.mail.smtp_server import Postbox, silence

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
    """A database with notices in it, and outboxes that send them to a postbox."""

    def __init__(self, place: Place, postbox: Postbox) -> None:
        self.clock = VirtualClock()
        self.postbox = postbox
        self._place = place
        self._numbers = itertools.count(1)
        self.database: Database

    async def open(self) -> None:
        self._place.prepare(now_ms=START)
        self.database = self._place.database()
        await self.database.open()

    async def owe(
        self, *recipients: str, kind: NotificationKind = NotificationKind.ENDPOINT_WARNED, **facts: Any
    ) -> None:
        """What a transition does in its transaction."""
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
        server = parse_mail_server(f"smtp://127.0.0.1:{port or self.postbox.port}")
        relay = SmtpServer(server, own_name="hooks.uplift.example", exchange_seconds=seconds)
        sender = Mailbox("Uplift Webhooks", "webhooks@uplift.example")
        return Outbox(
            self.database, LocalShards(), self.clock, relay, sender=sender, public_url=PUBLIC_URL, link_key=LINK_KEY
        )

    async def rows(self) -> list[Any]:
        """All notices as they are stored."""
        return await self.database.read(lambda c: list(c.execute(sa.select(table).order_by(table.c.seq))))

    @property
    def arrived(self) -> list[str]:
        return [each.recipient for each in self.postbox.received]


@pytest.fixture
async def office(place: Place, postbox: Postbox) -> AsyncIterator[Office]:
    office = Office(place, postbox)
    await office.open()
    yield office
    await office.database.close()


async def until(condition: Any) -> None:
    """Let the loop run until something holds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", NotificationKind)
async def test_each_contact_gets_one_message_with_both_bodies(office: Office, kind: NotificationKind) -> None:
    office.postbox.open()
    await office.owe(COACH, DATA, kind=kind)
    outbox = office.outbox()
    assert await outbox.send_due()
    assert not await outbox.send_due()
    assert sorted(office.arrived) == [COACH, DATA]
    first, second = office.postbox.received
    assert first.message["Message-ID"] != second.message["Message-ID"]
    for received in (first, second):
        assert received.sender == "webhooks@uplift.example"
        assert received.message["To"] == received.recipient
        assert f"{PUBLIC_URL}" in received.text
        assert f"{PUBLIC_URL}" in received.html
    assert office.postbox.said.count("EHLO") == 1
    for row in await office.rows():
        assert (row.sent_at, row.due_at, row.attempts_made, row.last_error) == (START, None, 1, None)


async def test_nothing_owed_connects_to_nobody(office: Office) -> None:
    office.postbox.open()
    assert not await office.outbox().send_due()
    assert office.postbox.said == []


async def test_more_than_a_bite_is_sent_bite_by_bite(office: Office) -> None:
    office.postbox.open()
    await office.owe(*(f"n{number}@rapids.example" for number in range(BATCH_SIZE + 3)))
    outbox = office.outbox()
    await outbox.send_due()
    assert len(office.arrived) == BATCH_SIZE
    await outbox.send_due()
    assert len(set(office.arrived)) == len(office.arrived) == BATCH_SIZE + 3


async def test_what_is_refused_for_now_is_tried_again_ever_more_rarely_and_given_up_after_three_days(
    office: Office,
) -> None:
    office.postbox.refuse_recipient = lambda _: "450 mailbox busy"
    office.postbox.open()
    await office.owe(COACH)
    outbox = office.outbox()
    tried: list[int] = []
    with capture_logs() as logs:
        while (await office.rows())[0].due_at is not None:
            office.clock.now = (await office.rows())[0].due_at
            # Not a moment earlier.
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


async def test_what_was_refused_for_now_arrives_once_it_is_taken(office: Office) -> None:
    office.postbox.refuse_message = lambda recipient: "451 later" if recipient == COACH else None
    office.postbox.open()
    await office.owe(COACH, DATA)
    outbox = office.outbox()
    await outbox.send_due()
    assert office.arrived == [DATA]
    office.postbox.refuse_message = lambda _: None
    assert not await outbox.send_due()
    office.clock.now += MINUTE
    await outbox.send_due()
    assert office.arrived == [DATA, COACH]
    first, second = await office.rows()
    assert (first.sent_at, first.attempts_made, first.last_error) == (START + MINUTE, 2, None)
    assert (second.sent_at, second.attempts_made) == (START, 1)


async def test_what_is_refused_permanent_is_kept_as_failed_and_the_others_go_on(office: Office) -> None:
    office.postbox.refuse_recipient = lambda recipient: "550 unknown user" if recipient == COACH else None
    office.postbox.open()
    await office.owe(COACH, DATA)
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


async def test_a_server_that_is_away_puts_off_all_and_is_told_once(office: Office) -> None:
    await office.owe(COACH, DATA)
    with capture_logs() as logs:
        await office.outbox(port=1).send_due()
    assert [row.due_at for row in await office.rows()] == [START + MINUTE] * 2
    (warning,) = logs
    assert (warning["log_level"], warning["emails"]) == ("warning", 2)
    assert "connection refused" in warning["cause"]
    office.postbox.open()
    office.clock.now += MINUTE
    await office.outbox().send_due()
    assert sorted(office.arrived) == [COACH, DATA]


async def test_what_could_not_be_sent_while_the_process_was_down_for_long_gets_one_attempt(office: Office) -> None:
    await office.owe(COACH)
    office.clock.now += 10 * DAY
    await office.outbox(port=1).send_due()
    (row,) = await office.rows()
    assert (row.due_at, row.attempts_made) == (None, 1)
    await office.owe(COACH)
    office.clock.now += 10 * DAY
    office.postbox.open()
    await office.outbox().send_due()
    assert office.arrived == [COACH]


@pytest.mark.parametrize("step", ["MAIL", "DATA"])
async def test_a_message_that_hangs_is_put_off_and_the_next_one_has_a_connection_of_its_own(
    office: Office, step: str
) -> None:
    office.postbox.hang_at = step
    office.postbox.open()
    await office.owe(COACH, DATA)
    outbox = office.outbox(seconds=0.3)
    await outbox.send_due()
    assert [row.attempts_made for row in await office.rows()] == [1, 0]
    office.postbox.hang_at = None
    await outbox.send_due()
    assert office.arrived == [DATA]


async def test_a_notice_that_cannot_be_put_into_words_holds_up_nobody(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.postbox.open()
    await office.owe(COACH, kind=NotificationKind.ENDPOINT_WARNED)
    await office.owe(DATA, kind=NotificationKind.ENDPOINT_RECOVERED)
    monkeypatch.delitem(
        __import__("uplift_server.mail.emails", fromlist=["_WORDING"])._WORDING, NotificationKind.ENDPOINT_WARNED
    )
    with capture_logs() as logs:
        await office.outbox().send_due()
    assert office.arrived == [DATA]
    assert "defect" in (await office.rows())[0].last_error
    assert logs[0]["exc_info"]


async def test_nothing_is_sent_twice_while_what_was_sent_cannot_be_written_down(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.postbox.open()
    await office.owe(COACH)
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


async def test_after_a_restart_in_between_only_the_rest_is_sent(office: Office) -> None:
    office.postbox.refuse_recipient = lambda recipient: "451 later" if recipient == DATA else None
    office.postbox.open()
    await office.owe(COACH, DATA)
    await office.outbox().send_due()
    office.postbox.refuse_recipient = lambda _: None
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


async def test_the_loop_looks_every_two_seconds(office: Office) -> None:
    office.postbox.open()
    async with running(office.outbox()):
        await until(lambda: office.clock.waiting)
        await office.owe(COACH)
        office.clock.now += POLL_INTERVAL_MS - 1
        assert office.arrived == []
        office.clock.fire()
        await until(lambda: office.arrived == [COACH])
    assert (await office.rows())[0].sent_at is not None


async def test_the_loop_goes_on_after_the_database_was_away_and_after_a_defect(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.postbox.open()
    await office.owe(COACH)
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


async def test_a_stop_lets_a_mail_under_way_finish_and_marks_it(office: Office) -> None:
    office.postbox.hang_at = "MAIL"
    office.postbox.open()
    await office.owe(COACH, DATA)
    outbox = office.outbox()
    outbox.start()
    await until(lambda: "MAIL" in office.postbox.said)
    stopping = asyncio.ensure_future(outbox.stop())
    await asyncio.sleep(0.1)
    office.postbox.go_on()
    await stopping
    assert office.arrived == [COACH]
    assert [row.sent_at for row in await office.rows()] == [START, None]
    assert [row.due_at for row in await office.rows()] == [None, START]


@pytest.mark.parametrize("step", ["MAIL", "DATA"])
async def test_a_stop_gives_up_a_mail_that_hangs_within_a_second_and_owes_it_as_before(
    office: Office, step: str
) -> None:
    office.postbox.hang_at = step
    office.postbox.open()
    await office.owe(COACH)
    outbox = office.outbox(seconds=60)
    outbox.start()
    await until(lambda: step in office.postbox.said)
    began = time.monotonic()
    with capture_logs() as logs:
        await outbox.stop()
    assert time.monotonic() - began < 10
    (row,) = await office.rows()
    assert (row.sent_at, row.due_at, row.attempts_made) == (None, START, 0)
    assert logs == []


async def test_a_stop_does_not_wait_for_a_server_that_never_speaks(office: Office) -> None:
    await office.owe(COACH)
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


async def test_a_repeat_after_a_lost_answer_is_the_same_message(office: Office) -> None:
    office.postbox.hold_answer = True
    office.postbox.open()
    await office.owe(COACH)
    await office.outbox(seconds=0.3).send_due()
    office.postbox.hold_answer = False
    office.clock.now += MINUTE
    await office.outbox().send_due()
    first, second = office.postbox.received
    assert first.content == second.content


async def test_a_put_off_that_is_written_down_late_lets_nothing_be_sent_again(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process, which has the duty by then, has sent it."""
    office.postbox.refuse_recipient = lambda _: "450 mailbox busy"
    office.postbox.open()
    await office.owe(COACH)
    slow = office.outbox()

    async def away(_body: object) -> None:
        raise Unavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(office.database, "write", away)
        with pytest.raises(Unavailable):
            await slow.send_due()
    office.postbox.refuse_recipient = lambda _: None
    await office.outbox().send_due()
    assert not await slow.send_due()
    office.clock.now += HOUR
    assert not await slow.send_due()
    assert office.arrived == [COACH]
    (row,) = await office.rows()
    assert (row.sent_at, row.due_at, row.last_error) == (START, None, None)


async def test_what_was_sent_is_written_down_though_the_duty_is_anothers_by_then(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.postbox.open()
    await office.owe(COACH)
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
