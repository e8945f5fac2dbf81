"""Health transitions over simulated weeks: warned, disabled, recovered."""

import pytest
from tests.engines import Place

from uplift_server.core.deliveries.causes import cause_of
from uplift_server.core.deliveries.health import HealthRule
from uplift_server.core.http.exchange import Exchange, Failure
from uplift_server.core.lifecycle import Status
from uplift_server.core.scheduling.waiting import HeldUpBy
from uplift_server.delivery.health.monitor import HealthSettings
from uplift_server.store.outbox import EmailResult, settle
from uplift_server.store.records import DisabledReason, EndpointState

from .failing_owners import (
    CONTACTS,
    DISABLED,
    RECOVERED,
    RULE,
    SLACK,
    WARNED,
    actions,
    deliver_emails,
    kinds,
    long_world,
    owner_of,
    read_emails,
    stored,
)
from .test_engine import resend
from .test_states import events_sent
from .world import DAY, HOUR, SECOND, START, respond

EXPIRED = "the certificate of one.test, or one in its chain, has expired"


async def test_a_failing_endpoint_is_warned_on_day_3_and_disabled_on_day_5(
    place: Place,
) -> None:
    async with long_world(place) as world:
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
        assert world.parts.status.warn_at(owner.endpoint.seq) == START + 3 * DAY
        assert world.parts.status.disable_at(owner.endpoint.seq) == START + 5 * DAY
        await world.run_for(SECOND + SLACK)
        assert await kinds(world) == WARNED
        assert owner.endpoint.health.status == "warned"
        assert world.parts.status.warn_at(owner.endpoint.seq) is None
        (_, _, facts), _ = await read_emails(world)
        warned_at = owner.endpoint.health.warned_at
        assert warned_at is not None
        assert facts["failing_since"] == START
        assert facts["disable_at"] == warned_at + 2 * DAY == world.parts.status.disable_at(owner.endpoint.seq)
        assert 5 < facts["failed_attempts"] <= owner.endpoint.health.consecutive_failures
        assert facts["cause"].startswith("Your server responded with 503")
        assert facts["remedy"]
        assert facts["endpoint"] == owner.endpoint.id_text
        await deliver_emails(world)
        await world.run_for(2 * DAY - 2 * SLACK)
        assert owner.endpoint.record.state is EndpointState.ENABLED
        await world.accept(2, account=owner.account)
        await world.run_for(3 * SLACK)
        assert await kinds(world) == WARNED + DISABLED
        row = await stored(world, owner)
        assert (row.state, row.disabled_reason) == (EndpointState.DISABLED, DisabledReason.FAILING)
        assert owner.endpoint.record.state is EndpointState.DISABLED
        assert world.parts.status.disable_at(owner.endpoint.seq) is None
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


async def test_a_warning_has_a_cause_while_the_circuit_breaker_is_open(place: Place) -> None:
    """Behind an open circuit breaker, most deliveries are not attempted."""
    async with long_world(place, breaker_failures=10) as world:
        owner = await owner_of(world)
        await world.accept(10, account=owner.account)
        for expected in (WARNED, WARNED + DISABLED):
            at = START + (3 if expected == WARNED else 5) * DAY
            await world.run_for(at - SLACK - world.clock.now)
            await world.accept(60, account=owner.account)
            await world.run_for(3 * SLACK)
            assert await kinds(world) == expected
            assert (await read_emails(world))[-1][2]["cause"].startswith("Your server responded with 503")
            await deliver_emails(world)


async def test_cause_and_circuit_breaker_survive_a_restart(place: Place) -> None:
    """The newest deliveries were never attempted, and the endpoint has no lane yet."""
    async with long_world(place, breaker_failures=10) as world:
        owner = await owner_of(world)
        expired = Exchange(0, 1000, failure=Failure.TLS, error=EXPIRED)
        world.sender.scripts[owner.host] = lambda _: expired
        await world.accept(10, account=owner.account)
        await world.run_for(DAY)
        await world.accept(100, account=owner.account)
        failing, probe_at = owner.endpoint.health, world.parts.status.next_probe_at(owner.endpoint.seq)
        assert probe_at is not None
        await world.kill()
        restarted = world.cache.endpoints[owner.endpoint.seq]
        assert restarted.health == failing
        cause = cause_of(restarted.health)
        assert cause is not None
        assert cause.code == "tls_certificate_expired"
        assert world.parts.status.next_probe_at(restarted.seq) == probe_at
        assert world.parts.status.held_up_by(restarted.seq) is HeldUpBy.PROBE
        assert world.parts.status.load().probes == {restarted.seq: probe_at}
        world.parts.lanes.block()
        await world.run_for(START + 3 * DAY + SLACK - world.clock.now)
        assert await kinds(world) == WARNED
        assert {facts["cause"] for _, _, facts in await read_emails(world)} == {cause.cause}


async def test_a_success_on_day_4_prevents_disabling_and_sends_a_recovery_email(place: Place) -> None:
    async with long_world(place) as world:
        owner = await owner_of(world)
        await world.accept(1, account=owner.account)
        await world.run_for(4 * DAY)
        assert await kinds(world) == WARNED
        await deliver_emails(world)
        owner.receiver.status = 204
        recovered_at = world.clock.now
        await world.accept(1, account=owner.account)
        assert owner.endpoint.health.failing_since is None
        await world.run_for(SLACK)
        assert await kinds(world) == WARNED + RECOVERED
        facts = (await read_emails(world))[-1][2]
        assert (facts["failed_since"], facts["recovered_at"]) == (START, recovered_at)
        assert owner.endpoint.health.status == "healthy"
        await world.run_for(10 * DAY)
        assert await kinds(world) == WARNED + RECOVERED
        assert owner.endpoint.record.state is EndpointState.ENABLED
        assert (await stored(world, owner)).warned_at is None


async def test_a_success_before_the_warning_restarts_the_clock(place: Place) -> None:
    async with long_world(place) as world:
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
        assert (await read_emails(world))[0][2]["failing_since"] == fails_again_at


async def test_a_failure_right_after_the_recovery_sends_both_emails(place: Place) -> None:
    """The recovery email is about the first failure. The time until the next warning starts with the second one."""
    async with long_world(place) as world:
        owner = await owner_of(world)
        await world.accept(1, account=owner.account)
        await world.run_for(3 * DAY + HOUR)
        assert await kinds(world) == WARNED
        await deliver_emails(world)
        statuses = iter([200, 500, 500])
        world.sender.scripts[owner.host] = lambda _: respond(next(statuses, 500))
        await world.accept(1, account=owner.account)
        await world.accept(1, account=owner.account)
        fails_again_at = world.clock.now
        assert owner.endpoint.health.failing_since == fails_again_at
        await world.run_for(SLACK)
        assert await kinds(world) == WARNED + RECOVERED
        assert (await read_emails(world))[-1][2]["failed_since"] == START
        await world.run_for(3 * DAY)
        assert await kinds(world) == WARNED + RECOVERED + WARNED
        assert (await read_emails(world))[-1][2]["failing_since"] == fails_again_at


@pytest.mark.parametrize("gap", [DAY, 20 * HOUR])
async def test_an_endpoint_with_little_traffic_is_warned_and_disabled(place: Place, gap: int) -> None:
    """One delivery has ten attempts in three days. No attempt follows until day 5."""
    documented = (5 * SECOND, 300 * SECOND, *(n * HOUR for n in (0.5, 2, 5, 10, 14, 20, 24)))
    async with long_world(place, delays_ms=[int(ms) for ms in documented]) as world:
        owner = await owner_of(world)
        await world.accept(1, account=owner.account)
        await world.run_for(3 * DAY + SLACK)
        assert await kinds(world) == WARNED
        await deliver_emails(world)
        await world.run_for(gap)
        await world.run_for(2 * DAY - gap + SLACK)
        assert await kinds(world) == WARNED + DISABLED


async def test_the_fifth_failure_sends_a_warning(place: Place) -> None:
    async with long_world(place, delays_ms=()) as world:
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
        # A late warning still gives two full days.
        assert world.parts.status.disable_at(owner.endpoint.seq) == warned_at + 2 * DAY
        await deliver_emails(world)
        await world.run_for(2 * DAY - 2 * SLACK)
        assert await kinds(world) == WARNED
        await world.run_for(2 * SLACK)
        assert await kinds(world) == WARNED + DISABLED


@pytest.mark.parametrize("failure", [Failure.EGRESS, Failure.BLOCKED])
async def test_failures_of_the_server_never_count(place: Place, failure: Failure) -> None:
    # Hours instead of days, because the egress is probed every few seconds.
    rule = HealthRule(3 * HOUR, 5 * HOUR)
    async with long_world(place, health_settings=HealthSettings(rule, sends_email=True)) as world:
        owner = await owner_of(world)
        world.sender.scripts[owner.host] = lambda _: Exchange(0, 1, failure=failure, error="the egress proxy is down")
        await world.accept(6, account=owner.account)
        await world.run_for(8 * HOUR)
        assert await kinds(world) == []
        assert owner.endpoint.health.status == "unknown"
        assert world.parts.status.disable_at(owner.endpoint.seq) is None


async def test_a_successful_resend_is_a_recovery(place: Place) -> None:
    async with long_world(place, delays_ms=[SECOND] * 6) as world:
        owner = await owner_of(world)
        (accepted,) = await world.accept(1, account=owner.account)
        await world.run_for(3 * DAY + SLACK)
        assert await kinds(world) == WARNED
        await deliver_emails(world)
        owner.receiver.status = 200
        await resend(world, accepted.seq, owner.endpoint.seq)
        await world.run_for(SLACK)
        assert await kinds(world) == WARNED + RECOVERED


@pytest.mark.parametrize(("contacts", "sends_email"), [((), True), (CONTACTS, False)])
async def test_endpoints_are_disabled_without_contacts_or_email(
    place: Place, contacts: tuple[str, ...], sends_email: bool
) -> None:
    async with long_world(place, health_settings=HealthSettings(RULE, sends_email=sends_email)) as world:
        owner = await owner_of(world, contacts=contacts)
        await world.accept(1, account=owner.account)
        await world.run_for(5 * DAY + 2 * SLACK)
        assert await kinds(world) == []
        names = [name for name, _ in await actions(world, owner.account)]
        assert names == ["endpoint.warned", "endpoint.disabled"]
        assert owner.endpoint.record.state is EndpointState.DISABLED


async def test_an_endpoint_is_disabled_two_days_after_a_late_warning_email(place: Place) -> None:
    async with long_world(place) as world:
        owner = await owner_of(world)
        await world.accept(1, account=owner.account)
        await world.run_for(5 * DAY + HOUR)
        assert await kinds(world) == WARNED
        assert owner.endpoint.record.state is EndpointState.ENABLED
        await deliver_emails(world)
        sent_at = world.clock.now
        await world.run_for(60 * SECOND + SLACK)
        assert world.parts.status.disable_at(owner.endpoint.seq) == sent_at + 2 * DAY
        assert (await stored(world, owner)).warned_at == owner.endpoint.health.warned_at == sent_at
        await world.kill()
        await world.run_for(sent_at + 2 * DAY - SLACK - world.clock.now)
        assert await kinds(world) == WARNED
        await world.run_for(2 * SLACK)
        assert await kinds(world) == WARNED + DISABLED


async def test_a_late_email_to_one_contact_delays_disabling(place: Place) -> None:
    """The email to the first contact was sent in time. The late email to the second contact states a later time."""
    async with long_world(place) as world:
        owner = await owner_of(world)
        await world.accept(1, account=owner.account)
        await world.run_for(3 * DAY + SLACK)
        at = world.clock.now
        await world.database.write(lambda c: settle(c, [EmailResult(1, 1, sent_at=at)]))
        await world.run_for(DAY)
        late = world.clock.now
        await world.database.write(lambda c: settle(c, [EmailResult(2, 5, sent_at=late)]))
        await world.run_for(2 * DAY - SLACK)
        assert await kinds(world) == WARNED
        await world.run_for(2 * SLACK)
        assert await kinds(world) == WARNED + DISABLED


async def test_a_failed_email_does_not_delay_disabling(place: Place) -> None:
    async with long_world(place) as world:
        owner = await owner_of(world)
        await world.accept(1, account=owner.account)
        await world.run_for(4 * DAY)
        await deliver_emails(world, sent=False)
        await world.run_for(DAY + 2 * SLACK)
        assert owner.endpoint.record.state is EndpointState.DISABLED


async def test_enabling_resets_the_health_without_a_recovery_email(place: Place) -> None:
    async with long_world(place) as world:
        owner = await owner_of(world)
        accepted = await world.accept(3, account=owner.account)
        await world.run_for(4 * DAY)
        await deliver_emails(world)
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
        assert (await read_emails(world))[-1][2]["failing_since"] == fails_at


@pytest.mark.parametrize("off", ["paused", "deleted"])
async def test_paused_and_deleted_endpoints_are_not_warned(place: Place, off: str) -> None:
    async with long_world(place) as world:
        owner = await owner_of(world)
        await world.accept(1, account=owner.account)
        await world.run_for(3 * DAY - HOUR)
        await (world.pause(owner.endpoint.seq) if off == "paused" else world.delete_endpoint(owner.endpoint.seq))
        await world.run_for(8 * DAY)
        assert await kinds(world) == []


async def test_a_410_response_disables_immediately_if_configured(place: Place) -> None:
    async with long_world(place, health_settings=HealthSettings(RULE, gone_disables=True, sends_email=True)) as world:
        owner, other = await owner_of(world), await owner_of(world, "other.test")
        owner.receiver.status = 410
        await world.accept(1, account=owner.account)
        await world.accept(1, account=other.account)
        await world.run_for(SLACK)
        assert await kinds(world) == DISABLED
        facts = (await read_emails(world))[0][2]
        assert facts["reason"] == "gone"
        assert facts["cause"].startswith("Your server responded with 410")
        assert owner.endpoint.record.disabled_reason is DisabledReason.GONE
        assert other.endpoint.record.state is EndpointState.ENABLED
        assert (await world.statuses())[Status.HELD] == 1


async def test_a_410_response_is_an_ordinary_failure_by_default(place: Place) -> None:
    async with long_world(place) as world:
        owner = await owner_of(world)
        owner.receiver.status = 410
        await world.accept(1, account=owner.account)
        await world.run_for(2 * DAY)
        assert owner.endpoint.record.state is EndpointState.ENABLED
        assert await kinds(world) == []
