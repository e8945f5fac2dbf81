"""A seed: a random month of the whole engine with users, receivers and faults, checked every day or every few days."""

import asyncio
import heapq
import itertools
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from uplift_server.core.deliveries.health import HealthRule
from uplift_server.core.deliveries.replays import ReplayState
from uplift_server.core.endpoint_settings import AttemptTimeouts
from uplift_server.core.lifecycle import Status
from uplift_server.core.scheduling.circuit_breaker import BreakerRule
from uplift_server.core.scheduling.retry_schedule import RetrySchedule
from uplift_server.delivery.engine import EngineSettings
from uplift_server.delivery.health.monitor import HealthSettings
from uplift_server.store import accounts, event_types
from uplift_server.store.outbox import EmailResult, settle
from uplift_server.store.records import HeldAction
from uplift_server.store.schema import metadata, notices

from .checks import Checks
from .clock import DAY, HOUR, MINUTE, SECOND, VirtualTime
from .deployment import Deployment
from .faults import Faults
from .model import Endpoint, Model, Violation, format_time
from .receivers import TIMEOUT_MS, Kind, Network, Receiver
from .services import DONE
from .users import TYPES, Users

SCHEDULES = (
    (5 * SECOND, 300 * SECOND, 1800 * SECOND, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, DAY),
    (2 * SECOND, 10 * SECOND, MINUTE),
    (30 * SECOND, 10 * MINUTE, 2 * HOUR, 8 * HOUR),
)
CHECK_TRIES = 20
"""A check waits up to this many times for an interval without requests, so that the statistics are complete."""
STATISTICS_EVERY_MS = 10 * SECOND
EMAILS_EVERY_MS = 6 * HOUR
END_DAYS_MAX = 12
LATE_MS = 2 * SECOND
"""The maximum time from the next scan to the first attempt to a steady receiver."""
SEEN_WITHIN_MS = 1_500
"""A process sees changes by other processes within 1 s by its own clock, which may be slightly wrong."""
NOT_REPEATED = frozenset(("secret", "previous_secret", "headers", "auth", "host", "pid"))
"""Columns that a digest excludes: they are encrypted with a random nonce, or depend on the machine."""

Action = Callable[[], Awaitable[None]]


class Pace(StrEnum):
    """How much happens on a day."""

    BUSY = "busy"
    CALM = "calm"
    """A calm month takes a fraction of the computing time, so that more random profiles are played."""


FAULTS_PER_DAY = {Pace.BUSY: (0, 0, 1, 1, 2), Pace.CALM: (*(0,) * 30, 1, 1, 2)}
"""The numbers of faults from which each day draws one. A day can also draw `Profile.faults_max`."""
CHECK_EVERY_DAYS = {Pace.BUSY: 1, Pace.CALM: 5}


@dataclass
class Profile:
    """The settings of a seed, which are random except for the pace."""

    is_clustered: bool
    processes: int
    has_faults: bool
    is_mass: bool
    retention_ms: int
    schedule: tuple[int, ...]
    breaker_failures: int
    endpoints: int
    accounts: int
    actions_per_day: int
    scan_every_ms: int
    faults_max: int
    """The maximum number of faults per day."""
    pace: Pace

    @classmethod
    def drawn(cls, rng: random.Random, pace: Pace = Pace.BUSY) -> "Profile":
        """Return random settings."""
        is_clustered, is_mass = rng.random() < 0.25, rng.random() < 0.12
        profile = cls(
            is_clustered=is_clustered,
            processes=rng.randrange(2, 4) if is_clustered else 1,
            has_faults=rng.random() < 0.85,
            is_mass=is_mass,
            retention_ms=rng.choice((0, 0, 0, 12 * DAY)),
            schedule=rng.choice(SCHEDULES),
            breaker_failures=rng.choice((0, 5, 10)),
            endpoints=12 if is_mass else rng.randrange(3, 8),
            accounts=rng.randrange(1, 4),
            actions_per_day=2 if is_mass else rng.randrange(3, 6 if is_clustered else 10),
            scan_every_ms=rng.choice((SECOND, 5 * SECOND, 10 * SECOND)),
            faults_max=rng.choice((1, 3, 12)),
            pace=pace,
        )
        # Change the profile only here, so that the other settings of a seed are the same at both paces. A mass failure
        # needs traffic: the server counts only endpoints with recent attempts.
        if pace is Pace.CALM and not is_mass:
            profile.actions_per_day = 1
        return profile


@dataclass
class Result:
    """The result of a seed."""

    seed: int
    violation: str | None
    trace: list[str]
    digest: str
    seconds: float
    counts: dict[str, int] = field(default_factory=dict)
    profile: Profile | None = None


class Month:
    """The month of one seed."""

    def __init__(self, seed: int, days: int, *, pace: Pace, place: Any = None, mutation: Any = None) -> None:
        self.random = rng = random.Random(seed)
        self.days = days
        self.profile = profile = Profile.drawn(rng, pace)
        self.time = VirtualTime()
        self.model = Model(
            self.time,
            late_ms=profile.scan_every_ms + LATE_MS,
            seen_within_ms=SEEN_WITHIN_MS if profile.is_clustered else 0,
        )
        self.network = Network(self.time, self.model)
        settings = EngineSettings(
            schedule=RetrySchedule(profile.schedule),
            breaker=BreakerRule(profile.breaker_failures, 300 * SECOND),
            timeouts=AttemptTimeouts(TIMEOUT_MS, 25 * SECOND),
            lease_ms=30 * SECOND,
            in_flight_max=100,
            endpoint_in_flight_max=16,
            retention_ms=profile.retention_ms,
            health=HealthSettings(HealthRule(3 * DAY, 5 * DAY), sends_email=True, operator_email="ops@uplift.example"),
            scan_every_ms=profile.scan_every_ms,
            statistics_every_ms=STATISTICS_EVERY_MS,
            tick_ms=SECOND,
        )
        self.deployment = Deployment(
            rng, self.time, self.network, settings, is_clustered=profile.is_clustered, place=place
        )
        self.deployment.mutation = mutation
        self.users = Users(random.Random(rng.random()), self.deployment, self.model)
        self.checks = Checks(
            self.deployment, self.model, retention_ms=profile.retention_ms,
            disable_after_ms=settings.health.rule.disable_after_ms,
        )  # fmt: skip
        self.checks.is_guarded = profile.is_mass
        self._agenda: list[tuple[int, int, Action]] = []
        self._numbers = itertools.count()
        self._hosts = itertools.count()
        self.faults = Faults(self)
        self.deployment.on_death = self.faults.on_death

    # ---- agenda

    def at(self, at: int, action: Action) -> None:
        """Schedule an action for the time `at`."""
        heapq.heappush(self._agenda, (at, next(self._numbers), action))

    async def run_until(self, until: int) -> None:
        """Run the agenda until a time."""
        while True:
            at = min(until, self._agenda[0][0]) if self._agenda else until
            await self.deployment.advance(at)
            if self.model.violation is not None:
                raise Violation(self.model.violation)
            self.deployment.is_interrupted = False
            if self.time.now >= until:
                return
            while self._agenda and self._agenda[0][0] <= self.time.now:
                _, _, action = heapq.heappop(self._agenda)
                await action()

    # ---- the month

    async def run(self) -> None:
        """Play the month. Raises Violation."""
        await self.deployment.open()
        asyncio.get_running_loop().set_exception_handler(self._note_defect)
        await self._prepare()
        for day in range(1, self.days + 1):
            self._plan_day()
            await self.run_until(self.time.now + DAY)
            if day % CHECK_EVERY_DAYS[self.profile.pace] == 0:
                await self._check()
            elif not self.deployment.is_down:
                await self.checks.check_states()
        await self._end()

    def _note_defect(self, _loop: object, context: dict[str, Any]) -> None:
        """Note an exception in a callback of the engine."""
        self.deployment.defects.append(context.get("exception") or RuntimeError(context["message"]))

    async def _prepare(self) -> None:
        write, random_id = self.deployment.database.write, self.deployment.random.randbytes
        for name in TYPES:
            await write(
                lambda c: event_types.put(
                    c, name=name, group="a", description="", schema=None, example=None, api_version="01/01/2022",  # noqa: B023
                    archived=False, now=self.time.now,
                )
            )  # fmt: skip
        for number in range(self.profile.accounts):
            account_id = random_id(16)
            account = await write(
                lambda c: accounts.create(
                    c, account_id=account_id, name="a", contact_emails=("x@club.example",), uid=None, now=self.time.now  # noqa: B023
                )
            )  # fmt: skip
            self.users.account_seqs[number] = account.seq
            self.users.account_ids[number] = "acc_" + account.id.hex()
        for _ in range(self.profile.processes):
            assert await self.deployment.start() is not None
        await self.deployment.advance(self.time.now + 5 * SECOND)
        for _ in range(self.profile.endpoints):
            await self._create_endpoint()
        await self.deployment.advance(self.time.now + 5 * SECOND)
        self.at(self.time.now + EMAILS_EVERY_MS, self._send_emails)

    async def _create_endpoint(self) -> None:
        host, rng = f"h{next(self._hosts)}.test", self.users.random
        kind = Kind.STEADY if self.profile.is_mass else rng.choice((*(Kind.STEADY,) * 2, *(Kind.DYING,) * 2, *Kind))
        self.network.receivers[host] = Receiver.drawn(rng, host, kind, self.time.now, self.days)
        account = rng.randrange(self.profile.accounts)
        await self.users.create_endpoint(host, account, is_steady=kind is Kind.STEADY, is_plain=self.profile.is_mass)

    async def act(self) -> None:
        """Run some actions of users now."""
        for _ in range(self.random.randrange(1, 4)):
            await self.random.choice(self._actions())()
            await self.deployment.advance(self.time.now + self.random.choice((0, 0, 300, 2 * SECOND)))

    def _actions(self) -> tuple[Action, ...]:
        users = self.users
        if self.profile.is_mass:
            return (users.accept,)
        return (
            *(users.accept,) * 12, users.repeat, users.pause, *(users.enable,) * 3, users.change, users.rotate,
            users.test, *(users.cancel,) * 2, *(users.resend,) * 2, users.replay, users.change_replay, users.erase,
            self._grow,
        )  # fmt: skip

    def _plan_day(self) -> None:
        rng = self.random
        for _ in range(self.profile.actions_per_day):
            self.at(self.time.now + rng.randrange(DAY), self.act)
        if self.profile.has_faults:
            for _ in range(rng.choice((*FAULTS_PER_DAY[self.profile.pace], self.profile.faults_max))):
                self.at(self.time.now + rng.randrange(DAY), rng.choice(self.faults.all))
        if self.profile.is_mass and rng.random() < 0.1:
            self.at(self.time.now + rng.randrange(DAY), self.faults.network_outage)

    async def _grow(self) -> None:
        if self.random.random() < 0.5:
            await self._create_endpoint()
        else:
            await self.users.delete()

    async def _check(self, *, final: bool = False) -> None:
        """Check all rows when the statistics are up to date."""
        if self.deployment.is_down:
            return
        for _ in range(CHECK_TRIES):
            # A response that arrives during the wait may not be in the statistics yet.
            requests, was_quiet = self.model.requests, not self.network.in_flight
            self.deployment.touch(STATISTICS_EVERY_MS + 5 * SECOND)
            await self.run_until(self.time.now + STATISTICS_EVERY_MS + 5 * SECOND)
            if was_quiet and self.model.requests == requests and not self.network.in_flight:
                break
        else:
            if final:
                raise Violation("the last requests never end")
            return
        if self.model.has_fault(self.time.now - 5 * MINUTE, self.time.now, margin=0) and not final:
            return
        await self.checks.run(final=final)

    async def _end(self) -> None:
        """End all faults, enable all endpoints, and wait until all deliveries have ended."""
        self._agenda.clear()
        await self.faults.end_all()
        for receiver in self.network.receivers.values():
            receiver.is_healed = True
        await self.faults.ensure_processes()
        self.at(self.time.now, self._send_emails)
        await self.run_until(self.time.now + 5 * MINUTE)
        for account, replay in self.users.replays:
            await self.users.call(
                "resume replay",
                lambda _, s: s.replays.set_state(s.callers[account], replay, ReplayState.RUNNING),  # noqa: B023
            )
        # The engine may have disabled an endpoint since the last check.
        await self.checks.check_states()
        await self._enable(list(self.model.endpoints.values()))
        query = f"SELECT count(*) FROM deliveries WHERE status IN ({int(Status.PENDING)}, {int(Status.HELD)})"
        for _ in range(END_DAYS_MAX):
            await self.run_until(self.time.now + DAY)
            if not await self.deployment.database.read(lambda c: c.exec_driver_sql(query).scalar()):
                break
            # The engine may disable an endpoint before its next attempt would succeed.
            await self.checks.check_states()
            await self._enable([endpoint for endpoint in self.model.endpoints.values() if endpoint.is_off])
        await self._check(final=True)

    async def _enable(self, endpoints: list[Endpoint]) -> None:
        for endpoint in endpoints:
            while endpoint.deleted_at is None and await self.users.enable_endpoint(endpoint, HeldAction.SEND) != DONE:
                await self.run_until(self.time.now + 5 * SECOND)

    # ---- emails

    async def _send_emails(self) -> None:
        self.at(self.time.now + EMAILS_EVERY_MS, self._send_emails)
        if self.faults.emails_fail:
            return
        now, query = self.time.now, sa.select(notices.c.seq).where(notices.c.due_at.is_not(None))
        seqs = await self.deployment.database.read(lambda c: list(c.scalars(query)))
        if seqs:
            await self.deployment.database.write(
                lambda c: settle(c, [EmailResult(seq, 1, sent_at=now) for seq in seqs])
            )

    # ---- results

    async def digest(self) -> str:
        """Return a digest of all requests and rows."""

        def rows(connection: Any) -> None:
            for table in metadata.sorted_tables:
                columns = [column for column in table.columns if column.name not in NOT_REPEATED]
                for row in connection.execute(sa.select(*columns).order_by(*table.primary_key)):
                    self.model.digest.update(repr(tuple(row)).encode())

        await self.deployment.database.read(rows)
        return self.model.digest.hexdigest()


async def _play(month: Month, seed: int, *, with_digest: bool) -> Result:
    began = time.perf_counter()
    violation, digest = None, ""
    try:
        await month.run()
        if with_digest:
            digest = await month.digest()
    except Violation as error:
        violation = str(error)
    except Exception as error:
        # A defect of the engine or of the simulation itself. Its seed reproduces it.
        error.add_note(f"seed {seed}, {format_time(month.time.now)}\n" + "\n".join(month.model.trace))
        raise
    finally:
        await month.deployment.close()
    counts = {
        "requests": month.model.requests, "events": len(month.model.events), "duplicates": month.model.duplicates,
        "disabled": month.checks.disabled, "skips": month.deployment.skips, **month.users.counts,
    }  # fmt: skip
    seconds = time.perf_counter() - began
    return Result(seed, violation, list(month.model.trace), digest, seconds, counts, month.profile)


def play(
    seed: int,
    days: int = 30,
    *,
    pace: Pace = Pace.BUSY,
    place: Any = None,
    mutation: Any = None,
    with_digest: bool = False,
) -> Result:
    """Play a seed."""
    month = Month(seed, days, pace=pace, place=place, mutation=mutation)
    loop = asyncio.new_event_loop()
    try:
        # `asyncio.run` would cancel the tasks of dead processes.
        return loop.run_until_complete(_play(month, seed, with_digest=with_digest))
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
