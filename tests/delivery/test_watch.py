"""What follows from an endpoint's health over simulated weeks: warned, disabled, recovered (promise 7)."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from uplift_server.core.deliveries import Status
from uplift_server.core.exchange import Exchange, Failure
from uplift_server.core.health import HealthRule
from uplift_server.core.notices import FACTS, NoticeKind
from uplift_server.delivery.directory import LiveEndpoint
from uplift_server.delivery.sender.request import Request
from uplift_server.delivery.watch import WatchSettings
from uplift_server.store import audit, health
from uplift_server.store.audit import AuditFilter
from uplift_server.store.errors import Unavailable
from uplift_server.store.notices import NoticeResult, settle
from uplift_server.store.records import Account, DisabledReason, EndpointState
from uplift_server.store.schema import endpoints as endpoints_table
from uplift_server.store.schema import notices as notices_table

from .test_engine import resend
from .test_states import events_sent
from .world import DAY, HOUR, SECOND, START, World, answer

SLACK = 5 * SECOND
"""How late the watch may act."""
EVERY_FOUR_HOURS = (5 * SECOND, 300 * SECOND, *[4 * HOUR] * 60)
RULE = HealthRule(3 * DAY, 5 * DAY)
CONTACTS = ("coach@rapids.example", "it@rapids.example")
ENDED = "mass_failure.ended"


class Receiver:
    """Answers as it is told to; 503 at first."""

    def __init__(self) -> None:
        self.status = 503

    def __call__(self, _: Request) -> Exchange | None:
        return answer(self.status)


@dataclass
class Owner:
    """An account with contacts, an endpoint, and its receiver."""

    account: Account
    endpoint: LiveEndpoint
    receiver: Receiver
    host: str


def long_world(folder: Path, **settings: Any) -> World:
    return World(folder, **{"delays_ms": EVERY_FOUR_HOURS, "scan_every_ms": HOUR} | settings)


async def owner_of(world: World, host: str = "one.test", contacts: tuple[str, ...] = CONTACTS) -> Owner:
    account, receiver = await world.new_account(contacts), Receiver()
    return Owner(account, await world.endpoint(host, receiver, account=account), receiver, host)


async def owed(world: World) -> list[tuple[NoticeKind, str, dict[str, Any]]]:
    """The mails owed so far."""
    query = sa.select(notices_table).order_by(notices_table.c.seq)
    rows = await world.database.read(lambda c: list(c.execute(query).all()))
    found = [(NoticeKind(row.kind), row.recipient, json.loads(row.facts)) for row in rows]
    for kind, _, facts in found:
        assert set(facts) == set(FACTS[kind])
    return found


async def kinds(world: World) -> list[tuple[NoticeKind, str]]:
    return [(kind, recipient) for kind, recipient, _ in await owed(world)]


async def deliver_mails(world: World, *, sent: bool = True) -> None:
    """Let all mails arrive, or be given up."""
    at = world.clock.now if sent else None
    query = sa.select(notices_table.c.seq).where(notices_table.c.due_at.is_not(None))
    seqs = await world.database.read(lambda c: list(c.scalars(query)))
    await world.database.write(lambda c: settle(c, [NoticeResult(seq, 1, sent_at=at) for seq in seqs]))


async def actions(world: World, account: Account | None = None) -> list[tuple[str, int]]:
    """What the audit log tells, oldest first, with its instants."""
    seq = None if account is None else account.seq
    page = await world.database.read(lambda c: audit.page(c, seq, AuditFilter(), limit=500))
    return [(entry.action, entry.at) for entry in reversed(page.items)]


async def stored(world: World, owner: Owner) -> sa.Row[Any]:
    query = sa.select(endpoints_table).where(endpoints_table.c.seq == owner.endpoint.seq)
    return await world.database.read(lambda c: c.execute(query).one())


def both(kind: NoticeKind) -> list[tuple[NoticeKind, str]]:
    return [(kind, contact) for contact in CONTACTS]


WARNED = both(NoticeKind.ENDPOINT_WARNED)
DISABLED = both(NoticeKind.ENDPOINT_DISABLED)
RECOVERED = both(NoticeKind.ENDPOINT_RECOVERED)


async def test_failing_from_day_0_is_warned_on_day_3_and_disabled_on_day_5_with_its_deliveries_held(
    tmp_path: Path,
) -> None:
    async with long_world(tmp_path) as world:
        owner = await owner_of(world)
        other = await owner_of(world, "other.test")
        other.receiver.status = 200
        await world.accept(3, account=owner.account)
        await world.accept(1, account=other.account)
        failing_since = owner.endpoint.health.failing_since
        assert failing_since == START
        await world.run_for(3 * DAY - SECOND)
        assert await kinds(world) == []
        assert owner.endpoint.health.status == "failing"
        assert world.engine.disable_at(owner.endpoint.seq) == START + 5 * DAY
        await world.run_for(SECOND + SLACK)
        assert await kinds(world) == WARNED
        assert owner.endpoint.health.status == "warned"
        (_, _, facts), _ = await owed(world)
        warned_at = owner.endpoint.health.warned_at
        assert warned_at is not None
        assert facts["failing_since"] == START
        assert facts["disable_at"] == warned_at + 2 * DAY == world.engine.disable_at(owner.endpoint.seq)
        assert 5 < facts["failed_attempts"] <= owner.endpoint.health.consecutive_failures
        assert facts["cause"].startswith("Your server answered 503")
        assert facts["remedy"]
        assert facts["endpoint"] == owner.endpoint.id_text
        await deliver_mails(world)
        await world.run_for(2 * DAY - 2 * SLACK)
        assert owner.endpoint.record.state is EndpointState.ENABLED
        await world.accept(2, account=owner.account)
        await world.run_for(3 * SLACK)
        assert await kinds(world) == WARNED + DISABLED
        row = await stored(world, owner)
        assert (row.state, row.disabled_reason) == (EndpointState.DISABLED, DisabledReason.FAILING)
        assert owner.endpoint.record.state is EndpointState.DISABLED
        assert world.engine.disable_at(owner.endpoint.seq) is None
        assert await world.statuses() == {Status.HELD: 5, Status.DELIVERED: 1}
        names = [name for name, _ in await actions(world, owner.account)]
        assert names == ["endpoint.warned", "endpoint.disabled"]
        sent = len(world.sender.times(owner.host))
        await world.accept(2, account=owner.account)
        await world.run_for(9 * DAY)
        assert len(world.sender.times(owner.host)) == sent
        assert await world.statuses() == {Status.HELD: 7, Status.DELIVERED: 1}
        assert await kinds(world) == WARNED + DISABLED
        assert other.endpoint.record.state is EndpointState.ENABLED


async def test_why_it_fails_is_told_though_its_newest_events_were_never_attempted(tmp_path: Path) -> None:
    """Behind an open breaker far more waits than is attempted."""
    async with long_world(tmp_path, breaker_failures=10) as world:
        owner = await owner_of(world)
        await world.accept(10, account=owner.account)
        for kinds_owed in (WARNED, WARNED + DISABLED):
            at = START + (3 if kinds_owed == WARNED else 5) * DAY
            await world.run_for(at - SLACK - world.clock.now)
            await world.accept(60, account=owner.account)
            await world.run_for(3 * SLACK)
            assert await kinds(world) == kinds_owed
            assert (await owed(world))[-1][2]["cause"].startswith("Your server answered 503")
            await deliver_mails(world)
        await world.restart()
        why = await world.database.read(lambda c: health.last_failure(c, owner.endpoint.seq, None))
        assert why is not None
        assert why.status_code == 503


async def test_one_success_on_day_4_prevents_it_and_mails_the_recovery(tmp_path: Path) -> None:
    async with long_world(tmp_path) as world:
        owner = await owner_of(world)
        await world.accept(1, account=owner.account)
        await world.run_for(4 * DAY)
        assert await kinds(world) == WARNED
        owner.receiver.status = 204
        answered_at = world.clock.now
        await world.accept(1, account=owner.account)
        assert owner.endpoint.health.failing_since is None
        await world.run_for(SLACK)
        assert await kinds(world) == WARNED + RECOVERED
        facts = (await owed(world))[-1][2]
        assert (facts["failed_since"], facts["recovered_at"]) == (START, answered_at)
        assert owner.endpoint.health.status == "healthy"
        await world.run_for(10 * DAY)
        assert await kinds(world) == WARNED + RECOVERED
        assert owner.endpoint.record.state is EndpointState.ENABLED
        assert (await stored(world, owner)).warned_at is None


async def test_a_success_before_the_warning_is_told_nobody_and_starts_the_clock_anew(tmp_path: Path) -> None:
    async with long_world(tmp_path) as world:
        owner = await owner_of(world)
        await world.accept(1, account=owner.account)
        await world.run_for(2 * DAY)
        owner.receiver.status = 200
        await world.run_for(5 * HOUR)
        owner.receiver.status = 500
        await world.accept(1, account=owner.account)
        fails_again_at = world.clock.now
        await world.run_for(3 * DAY - SECOND)
        assert await kinds(world) == []
        await world.run_for(SLACK + SECOND)
        assert await kinds(world) == WARNED
        assert (await owed(world))[0][2]["failing_since"] == fails_again_at


async def test_failing_again_right_after_the_recovery_is_told_as_both(tmp_path: Path) -> None:
    """The recovery is told of the failing that was warned of, and the new one has its own clock."""
    async with long_world(tmp_path) as world:
        owner = await owner_of(world)
        await world.accept(1, account=owner.account)
        await world.run_for(3 * DAY + HOUR)
        assert await kinds(world) == WARNED
        answers = iter([200, 500, 500])
        world.sender.scripts[owner.host] = lambda _: answer(next(answers, 500))
        await world.accept(1, account=owner.account)
        await world.accept(1, account=owner.account)
        fails_again_at = world.clock.now
        assert owner.endpoint.health.failing_since == fails_again_at
        await world.run_for(SLACK)
        assert await kinds(world) == WARNED + RECOVERED
        assert (await owed(world))[-1][2]["failed_since"] == START
        await world.run_for(3 * DAY)
        assert await kinds(world) == WARNED + RECOVERED + WARNED
        assert (await owed(world))[-1][2]["failing_since"] == fails_again_at


@pytest.mark.parametrize("gap", [DAY, 20 * HOUR])
async def test_an_endpoint_with_little_traffic_is_treated_alike(tmp_path: Path, gap: int) -> None:
    """One delivery, with the schedule of ten attempts in three days, and then nothing until day 5."""
    documented = (5 * SECOND, 300 * SECOND, *(n * HOUR for n in (0.5, 2, 5, 10, 14, 20, 24)))
    async with long_world(tmp_path, delays_ms=[int(ms) for ms in documented]) as world:
        owner = await owner_of(world)
        await world.accept(1, account=owner.account)
        await world.run_for(3 * DAY + SLACK)
        assert await kinds(world) == WARNED
        await deliver_mails(world)
        await world.run_for(gap)
        await world.run_for(2 * DAY - gap + SLACK)
        assert await kinds(world) == WARNED + DISABLED


async def test_fewer_failures_than_five_warn_nobody_and_the_fifth_does(tmp_path: Path) -> None:
    async with long_world(tmp_path, delays_ms=()) as world:
        owner = await owner_of(world)
        for _ in range(4):
            await world.accept(1, account=owner.account)
            await world.run_for(DAY)
        await world.run_for(6 * DAY)
        assert await kinds(world) == []
        await world.accept(1, account=owner.account)
        await world.run_for(SLACK)
        assert await kinds(world) == WARNED
        warned_at = owner.endpoint.health.warned_at
        assert warned_at is not None
        # Whoever is warned late has as long as ever.
        assert world.engine.disable_at(owner.endpoint.seq) == warned_at + 2 * DAY
        await deliver_mails(world)
        await world.run_for(2 * DAY - 2 * SLACK)
        assert await kinds(world) == WARNED
        await world.run_for(2 * SLACK)
        assert await kinds(world) == WARNED + DISABLED


@pytest.mark.parametrize("failure", [Failure.EGRESS, Failure.BLOCKED])
async def test_failures_of_ours_never_count(tmp_path: Path, failure: Failure) -> None:
    async with long_world(tmp_path) as world:
        owner = await owner_of(world)
        world.sender.scripts[owner.host] = lambda _: Exchange(0, 1, failure=failure, error="the egress proxy is down")
        await world.accept(3, account=owner.account)
        await world.run_for(8 * DAY)
        assert await kinds(world) == []
        assert owner.endpoint.health.status == "unknown"
        assert world.engine.disable_at(owner.endpoint.seq) is None


async def test_a_resend_that_succeeds_is_a_recovery(tmp_path: Path) -> None:
    async with long_world(tmp_path, delays_ms=[SECOND] * 6) as world:
        owner = await owner_of(world)
        (accepted,) = await world.accept(1, account=owner.account)
        await world.run_for(3 * DAY + SLACK)
        assert await kinds(world) == WARNED
        owner.receiver.status = 200
        await resend(world, accepted.seq, owner.endpoint.seq)
        await world.run_for(SLACK)
        assert await kinds(world) == WARNED + RECOVERED


async def test_restarts_and_kills_change_no_instant_and_repeat_nothing(tmp_path: Path) -> None:
    async with long_world(tmp_path) as world:
        owner = await owner_of(world)
        await world.accept(1, account=owner.account)
        for day in range(6):
            await world.run_for(DAY - HOUR)
            await (world.kill() if day % 2 else world.restart())
            await world.run_for(HOUR)
            if day == 3:
                await deliver_mails(world)
        assert await kinds(world) == WARNED + DISABLED
        at = dict(await actions(world, owner.account))
        assert START + 3 * DAY <= at["endpoint.warned"] <= START + 3 * DAY + SLACK
        assert START + 5 * DAY <= at["endpoint.disabled"] <= START + 5 * DAY + 2 * SLACK
        assert world.directory.endpoints[owner.endpoint.seq].record.state is EndpointState.DISABLED


async def test_a_step_that_fell_due_while_the_server_was_off_is_taken_after_what_was_due_is_attempted(
    tmp_path: Path,
) -> None:
    async with long_world(tmp_path) as world:
        back, gone = await owner_of(world), await owner_of(world, "gone.test")
        await world.accept(1, account=back.account)
        await world.accept(1, account=gone.account)
        await world.run_for(2 * DAY)
        await world._abandon()
        world.clock.now += 5 * DAY
        back.receiver.status = 200
        await world._open()
        await world.run_for(SLACK)
        assert await kinds(world) == WARNED
        assert (await owed(world))[0][2]["endpoint"] == gone.endpoint.id_text
        # It was off, so the warned one keeps its two days.
        await deliver_mails(world)
        await world.run_for(2 * DAY - 2 * SLACK)
        assert await kinds(world) == WARNED
        await world.run_for(3 * SLACK)
        assert await kinds(world) == WARNED + DISABLED


async def test_a_recovery_that_a_kill_left_untold_is_told_at_the_next_start(tmp_path: Path) -> None:
    async with long_world(tmp_path) as world:
        owner = await owner_of(world)
        await world.accept(1, account=owner.account)
        await world.run_for(3 * DAY + HOUR)
        owner.receiver.status = 200
        await world.accept(1, account=owner.account)
        await world.kill()
        await world.run_for(2 * SLACK)
        assert await kinds(world) == WARNED + RECOVERED


async def test_without_contacts_or_without_mail_the_same_clock_runs(tmp_path: Path) -> None:
    for folder, contacts, mails in (("a", (), True), ("b", CONTACTS, False)):
        (tmp_path / folder).mkdir()
        async with long_world(tmp_path / folder, watch=WatchSettings(RULE, mails=mails)) as world:
            owner = await owner_of(world, contacts=contacts)
            await world.accept(1, account=owner.account)
            await world.run_for(5 * DAY + 2 * SLACK)
            assert await kinds(world) == []
            names = [name for name, _ in await actions(world, owner.account)]
            assert names == ["endpoint.warned", "endpoint.disabled"]
            assert owner.endpoint.record.state is EndpointState.DISABLED


async def test_a_disable_waits_for_the_mail_that_warned_of_it(tmp_path: Path) -> None:
    async with long_world(tmp_path) as world:
        owner = await owner_of(world)
        await world.accept(1, account=owner.account)
        await world.run_for(5 * DAY + HOUR)
        assert await kinds(world) == WARNED
        assert owner.endpoint.record.state is EndpointState.ENABLED
        await deliver_mails(world)
        await world.run_for(2 * 60 * SECOND)
        assert await kinds(world) == WARNED + DISABLED


async def test_a_mail_that_was_given_up_holds_up_no_disable(tmp_path: Path) -> None:
    async with long_world(tmp_path) as world:
        owner = await owner_of(world)
        await world.accept(1, account=owner.account)
        await world.run_for(4 * DAY)
        await deliver_mails(world, sent=False)
        await world.run_for(DAY + 2 * SLACK)
        assert owner.endpoint.record.state is EndpointState.DISABLED


async def test_an_owner_who_enables_it_starts_afresh_without_a_recovery_mail(tmp_path: Path) -> None:
    async with long_world(tmp_path) as world:
        owner = await owner_of(world)
        accepted = await world.accept(3, account=owner.account)
        await world.run_for(4 * DAY)
        await deliver_mails(world)
        await world.run_for(2 * DAY)
        owner.receiver.status = 200
        sent = len(world.sender.sent)
        await world.enable(owner.endpoint.seq)
        assert owner.endpoint.health.status == "unknown"
        await world.run_for(10 * SECOND)
        assert len(events_sent(world, sent)) == len(accepted)
        assert owner.endpoint.health.status == "healthy"
        assert await kinds(world) == WARNED + DISABLED
        owner.receiver.status = 500
        fails_at = world.clock.now
        await world.accept(1, account=owner.account)
        await world.run_for(3 * DAY + SLACK)
        assert await kinds(world) == WARNED + DISABLED + WARNED
        assert (await owed(world))[-1][2]["failing_since"] == fails_at


@pytest.mark.parametrize("off", ["paused", "deleted"])
async def test_nobody_is_warned_of_what_is_paused_or_deleted(tmp_path: Path, off: str) -> None:
    async with long_world(tmp_path) as world:
        owner = await owner_of(world)
        await world.accept(1, account=owner.account)
        await world.run_for(3 * DAY - HOUR)
        await (world.pause(owner.endpoint.seq) if off == "paused" else world.delete_endpoint(owner.endpoint.seq))
        await world.run_for(8 * DAY)
        assert await kinds(world) == []


async def test_a_pause_amid_the_disable_wins(tmp_path: Path) -> None:
    """The owner's word is in the store, and not yet in memory, when the watch acts."""
    async with long_world(tmp_path) as world:
        owner = await owner_of(world)
        await world.accept(1, account=owner.account)
        await world.run_for(4 * DAY)
        await deliver_mails(world)
        await world.run_for(DAY - HOUR)
        change = sa.update(endpoints_table).values(state=int(EndpointState.PAUSED))
        await world.database.write(lambda c: c.execute(change).rowcount)
        await world.run_for(2 * HOUR)
        assert (await stored(world, owner)).state == EndpointState.PAUSED
        assert await kinds(world) == WARNED


async def test_a_database_that_is_away_delays_the_steps_and_loses_none(tmp_path: Path) -> None:
    async with long_world(tmp_path) as world:
        owner = await owner_of(world)
        await world.accept(1, account=owner.account)
        await world.run_for(3 * DAY - 10 * SECOND)
        write = world.database.write

        def refusing(_: Any) -> Any:
            raise Unavailable("no space is left on the disk")

        world.database.write = refusing  # type: ignore[method-assign,assignment]
        await world.run_for(60 * SECOND)
        world.database.write = write  # type: ignore[method-assign]
        assert await kinds(world) == []
        await world.run_for(SLACK)
        assert await kinds(world) == WARNED


async def test_gone_disables_at_once_where_the_operator_wants_that(tmp_path: Path) -> None:
    async with long_world(tmp_path, watch=WatchSettings(RULE, gone_disables=True, mails=True)) as world:
        owner, other = await owner_of(world), await owner_of(world, "other.test")
        owner.receiver.status = 410
        await world.accept(1, account=owner.account)
        await world.accept(1, account=other.account)
        await world.run_for(SLACK)
        assert await kinds(world) == DISABLED
        facts = (await owed(world))[0][2]
        assert facts["reason"] == "gone"
        assert facts["cause"].startswith("Your server answered 410")
        assert owner.endpoint.record.disabled_reason is DisabledReason.GONE
        assert other.endpoint.record.state is EndpointState.ENABLED
        assert (await world.statuses())[Status.HELD] == 1


async def test_gone_is_an_answer_like_others_by_default_and_once_it_answers_again(tmp_path: Path) -> None:
    async with long_world(tmp_path) as world:
        owner = await owner_of(world)
        owner.receiver.status = 410
        await world.accept(1, account=owner.account)
        await world.run_for(2 * DAY)
        assert owner.endpoint.record.state is EndpointState.ENABLED
        assert await kinds(world) == []


async def many(world: World, count: int) -> list[Owner]:
    return [await owner_of(world, f"e{n}.test", ("x@club.example",)) for n in range(count)]


async def event_to_each(world: World, owners: list[Owner]) -> None:
    for owner in owners:
        await world.accept(1, account=owner.account)


async def test_most_failing_together_disables_none_and_tells_the_operator_once(tmp_path: Path) -> None:
    """90 % of 20; then all answer again, and the clocks of two that go on failing know nothing of that time."""
    async with long_world(tmp_path) as world:
        owners = await many(world, 20)
        for owner in owners[18:]:
            owner.receiver.status = 200
        await event_to_each(world, owners)
        await world.run_for(SLACK)
        assert await kinds(world) == [(NoticeKind.MASS_FAILURE_BEGAN, "ops@uplift.example")]
        facts = (await owed(world))[0][2]
        assert (facts["since"], facts["endpoints"], facts["attempted"]) == (START, 18, 20)
        assert facts["causes"] == {"server_error": 18}
        assert world.engine.disable_at(owners[0].endpoint.seq) is None
        await world.run_for(3 * DAY)
        await event_to_each(world, owners[18:])
        await world.kill()
        await world.run_for(3 * DAY)
        assert len(await kinds(world)) == 1
        for owner in owners[2:18]:
            owner.receiver.status = 200
        await event_to_each(world, owners[2:18])
        ended_at = world.clock.now
        await world.run_for(2 * SLACK)
        assert (await kinds(world))[1:] == [(NoticeKind.MASS_FAILURE_ENDED, "ops@uplift.example")]
        facts = (await owed(world))[-1][2]
        assert (facts["since"], facts["endpoints"], facts["still_failing"]) == (START, 18, 2)
        assert ended_at <= facts["ended_at"] <= ended_at + SLACK
        live = [world.directory.endpoints[owner.endpoint.seq] for owner in owners]
        assert all(endpoint.record.state is EndpointState.ENABLED for endpoint in live)
        await world.run_for(3 * DAY - 3 * SLACK)
        assert len(await kinds(world)) == 2
        await world.run_for(3 * SLACK)
        assert (await kinds(world))[2:] == [(NoticeKind.ENDPOINT_WARNED, "x@club.example")] * 2
        await deliver_mails(world)
        await world.run_for(2 * DAY - 3 * SLACK)
        assert all(endpoint.record.state is EndpointState.ENABLED for endpoint in live)
        await world.run_for(4 * SLACK)
        assert [endpoint.record.state is EndpointState.ENABLED for endpoint in live] == [False] * 2 + [True] * 18
        system = [name for name, _ in await actions(world) if name.startswith("mass_failure")]
        assert system == ["mass_failure.began", ENDED]


@pytest.mark.parametrize(("failing", "well"), [(9, 0), (10, 11)])
async def test_fewer_than_ten_or_than_half_are_no_mass_failure(tmp_path: Path, failing: int, well: int) -> None:
    async with long_world(tmp_path) as world:
        owners = await many(world, failing + well)
        for owner in owners[failing:]:
            owner.receiver.status = 200
        # Those that answer are seen first: an endpoint nobody has attempted yet says nothing.
        await event_to_each(world, owners[failing:])
        await event_to_each(world, owners[:failing])
        for _ in range(3):
            await world.run_for(DAY - HOUR)
            await event_to_each(world, owners[failing:])
            await world.run_for(HOUR)
        await world.run_for(SLACK)
        assert await kinds(world) == [(NoticeKind.ENDPOINT_WARNED, "x@club.example")] * failing


async def test_the_mass_failure_of_one_hour_excuses_no_more_than_that_hour(tmp_path: Path) -> None:
    """An endpoint that failed for a day before has its warning an hour later than without it."""
    async with long_world(tmp_path) as world:
        early = await owner_of(world)
        await world.accept(1, account=early.account)
        await world.run_for(DAY)
        owners = await many(world, 12)
        await event_to_each(world, owners)
        began_at = world.clock.now
        await world.run_for(HOUR)
        for owner in owners:
            owner.receiver.status = 200
        await event_to_each(world, owners)
        await world.run_for(2 * SLACK)
        names = dict(await actions(world))
        excused = names[ENDED] - began_at
        assert HOUR <= excused <= HOUR + SLACK
        assert early.endpoint.health.excused_ms == excused
        await world.run_for(START + 3 * DAY + excused - world.clock.now - SECOND)
        assert WARNED[0] not in await kinds(world)
        await world.run_for(SLACK)
        assert (await kinds(world))[-2:] == WARNED


async def test_one_that_flares_up_again_is_told_once_and_excuses_nothing_twice(tmp_path: Path) -> None:
    async with long_world(tmp_path) as world:
        owners = await many(world, 10)
        await event_to_each(world, owners)
        await world.run_for(HOUR // 2)
        owners[0].receiver.status = 200
        await world.accept(1, account=owners[0].account)
        await world.run_for(SLACK)
        owners[0].receiver.status = 500
        await world.accept(1, account=owners[0].account)
        await world.run_for(SLACK)
        names = [name for name, _ in await actions(world)]
        assert names == ["mass_failure.began", ENDED, "mass_failure.began"]
        told = [
            (NoticeKind.MASS_FAILURE_BEGAN, "ops@uplift.example"),
            (NoticeKind.MASS_FAILURE_ENDED, "ops@uplift.example"),
        ]
        assert await kinds(world) == told
        await world.run_for(HOUR // 2)
        for owner in owners[:5]:
            owner.receiver.status = 200
            await world.accept(1, account=owner.account)
        await world.run_for(2 * SLACK)
        at = await actions(world)
        assert [name for name, _ in at][3:] == [ENDED]
        excused = owners[-1].endpoint.health.excused_ms
        assert at[-1][1] - START - SLACK <= excused <= at[-1][1] - START
        assert await kinds(world) == told


async def test_a_mass_failure_whose_end_cannot_be_written_is_ended_once(tmp_path: Path) -> None:
    async with long_world(tmp_path) as world:
        owners = await many(world, 12)
        await event_to_each(world, owners)
        await world.run_for(HOUR)
        write = world.database.write

        def refusing(_: Any) -> Any:
            raise Unavailable("no space is left on the disk")

        for owner in owners[:8]:
            owner.receiver.status = 200
        await event_to_each(world, owners[:8])
        world.database.write = refusing  # type: ignore[method-assign,assignment]
        await world.run_for(HOUR // 2)
        world.database.write = write  # type: ignore[method-assign]
        await world.run_for(SLACK)
        assert [name for name, _ in await actions(world)] == ["mass_failure.began", ENDED]
        excused = owners[-1].endpoint.health.excused_ms
        assert HOUR <= excused <= HOUR + SLACK
        assert (await stored(world, owners[-1])).excused_ms == excused


async def test_gone_disables_nobody_while_most_endpoints_fail(tmp_path: Path) -> None:
    """A proxy of ours that answers 410 for everybody."""
    async with long_world(tmp_path, watch=WatchSettings(RULE, gone_disables=True)) as world:
        owners = await many(world, 12)
        for owner in owners:
            owner.receiver.status = 410
        for owner in owners:
            await world.accept(1, account=owner.account)
        await world.run_for(DAY)
        states = {owner.endpoint.record.state for owner in owners}
        assert states == {EndpointState.ENABLED}
