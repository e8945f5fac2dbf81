"""Faults of processes, of the database, of notifications and of the network, at random times."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from .clock import DAY, HOUR, MINUTE, SECOND
from .deployment import FAULT_MS, Process
from .link import Fault

if TYPE_CHECKING:
    from .month import Month

Action = Callable[[], Awaitable[None]]
RESTART_MS_MAX = MINUTE
PLANNED = 0
"""The process number for planned starts and stops, which excuse delays but not repeated attempts."""


class Faults:
    """The faults of one month."""

    def __init__(self, month: "Month") -> None:
        self._month = month
        self._ends: list[Action] = []
        self._is_ending = False
        self.emails_fail = False
        self._network_up_at = 0
        """When the last outage of our network ended, or 0 before the first one."""

    async def end_all(self) -> None:
        """End all faults, and begin no others."""
        self._is_ending = True
        for end in self._ends:
            await end()

    @property
    def all(self) -> tuple[Action, ...]:
        """Functions that each begin a fault. Frequent faults are listed twice."""
        common: tuple[Action, ...] = (
            self._kill, self._kill, self._kill_in_change, self._kill_in_change, self._lose, self._outage, self._restart,
            self._sleep, self._egress_outage, self._email_outage,
        )  # fmt: skip
        if not self._month.profile.is_clustered:
            return common
        return (
            *common, self._suspend, self._suspend, self._lose_notifications, self._partial_outage, self._partial_outage,
            self._rolling_restart,
        )  # fmt: skip

    def _process(self) -> Process | None:
        living = self._month.deployment.living
        return self._month.random.choice(living) if living else None

    def on_death(self, process: Process) -> None:
        """Restart a process after its death."""
        self._month.model.fault(process.number)
        self._month.model.note(f"process {process.number} died")
        if not self._is_ending:
            self._month.at(
                self._month.time.now + self._month.random.randrange(SECOND, RESTART_MS_MAX), self.ensure_processes
            )

    async def ensure_processes(self) -> None:
        """Start the missing processes."""
        while len(self._month.deployment.processes) < self._month.profile.processes:
            process = await self._month.deployment.start()
            self._month.model.fault(PLANNED)
            if process is None:
                self._month.at(self._month.time.now + 10 * SECOND, self.ensure_processes)
                return
            self._month.model.note(f"process {process.number} started")

    def _during(self, ms: int, end: Callable[[], None], process: int | None = None, *, is_fault: bool = True) -> None:
        """Call `end` after a duration. `is_fault`: a process or the database fails, which excuses repeated attempts."""
        number = self._month.model.begin_fault(process) if is_fault else None
        has_ended = []

        async def finish() -> None:
            if not has_ended:
                has_ended.append(True)
                end()
                if number is not None:
                    self._month.model.end_fault(number)
                self._month.deployment.touch(FAULT_MS)

        self._ends.append(finish)
        self._month.at(self._month.time.now + ms, finish)
        self._month.deployment.touch(FAULT_MS)

    async def _kill(self) -> None:
        if (process := self._process()) is not None:
            await self._month.deployment.kill(process)

    async def _kill_in_change(self) -> None:
        """Kill a process before or after one of its next commits."""
        await self._break(Fault.KILLED_BEFORE, Fault.KILLED_AFTER)
        await self._month.act()

    async def _lose(self) -> None:
        """Fail some of the next changes, or lose their responses."""
        for _ in range(self._month.random.randrange(1, 6)):
            # The writer of SQLite runs in the same process, so its response can be lost only if the process dies.
            await self._break(
                Fault.NOT_COMMITTED, *((Fault.RESPONSE_LOST,) if self._month.profile.is_clustered else ())
            )
        await self._month.act()

    async def _break(self, *faults: Fault) -> None:
        process = self._process()
        if process is None:
            return
        process.link.faults[self._month.random.randrange(12)] = self._month.random.choice(faults)
        self._month.model.note(f"changes of process {process.number} fail: {process.link.faults}")

        def end() -> None:
            # The link replaces the dictionary with every change.
            process.link.faults.clear()

        self._during(5 * MINUTE, end, process.number)

    async def _outage(self) -> None:
        """Let the database fail for seconds or hours."""
        if self._month.deployment.is_down:
            return
        lasts = self._month.random.choice((2 * SECOND, 20 * SECOND, 10 * MINUTE, 6 * HOUR))
        self._month.model.note(f"the database fails for {lasts // SECOND} s")
        self._month.deployment.is_down = True
        for process in self._month.deployment.processes:
            process.connect(is_down=True)

        def end() -> None:
            self._month.deployment.is_down = False
            for process in self._month.deployment.processes:
                process.connect(is_down=False)
            self._month.model.note("the database is up")

        self._during(lasts, end)

    async def _partial_outage(self) -> None:
        """Disconnect one process from the database."""
        process = self._process()
        if process is None or self._month.deployment.is_down:
            return
        process.connect(is_down=True)
        self._month.model.note(f"process {process.number} is disconnected")

        def end() -> None:
            process.connect(is_down=self._month.deployment.is_down)

        self._during(self._month.random.choice((2 * SECOND, 10 * SECOND, HOUR)), end, process.number)

    async def _restart(self) -> None:
        """Drain and restart a process."""
        process = self._process()
        if process is None or self._month.model.has_fault(self._month.time.now, self._month.time.now, margin=0):
            return
        self._month.model.note(f"process {process.number} stops")
        number = self._month.model.begin_fault(PLANNED)
        await self._month.deployment.stop(process)
        await self.ensure_processes()
        self._month.model.end_fault(number)

    async def _rolling_restart(self) -> None:
        for _ in range(self._month.profile.processes):
            await self._restart()
            await self._month.deployment.advance(self._month.time.now + 10 * SECOND)

    async def _sleep(self) -> None:
        """Let the machine sleep, so that the time jumps."""
        ms = self._month.random.choice((10 * SECOND, 3 * MINUTE, 2 * HOUR))
        self._month.model.note(f"the time jumps by {ms // SECOND} s")
        self._during(MINUTE, lambda: None)
        self._month.time.jump(ms)

    async def _suspend(self) -> None:
        """Suspend a process, like a virtual machine that moves to another host."""
        if (process := self._process()) is not None:
            ms = self._month.random.choice((3 * SECOND, 8 * SECOND, 40 * SECOND, 3 * MINUTE))
            process.clock.suspended_until = self._month.time.now + ms
            self._month.model.note(f"process {process.number} is suspended for {ms // SECOND} s")
            self._during(ms, lambda: None, process.number)

    async def _lose_notifications(self) -> None:
        self._month.deployment.bus.loss = self._month.random.choice((0.5, 1.0))

        def end() -> None:
            self._month.deployment.bus.loss = 0.0

        self._during(self._month.random.choice((MINUTE, 3 * HOUR)), end, is_fault=False)

    async def network_outage(self) -> None:
        """Let our own network fail for hours or days: no receiver is reachable."""
        # A mass failure needs endpoints that begin to fail together: all must have recovered from the last outage, and
        # the database must accept the events that they fail to receive.
        if self._month.network.is_down or self._month.deployment.is_down or not self._have_all_recovered():
            return
        self._month.network.is_down = True
        lasts = self._month.random.choice((2 * HOUR, 4 * DAY, 7 * DAY))
        self._month.checks.network_downs.append((self._month.time.now, self._month.time.now + lasts + DAY))
        self._month.model.note(f"our network fails for {lasts // HOUR} h")

        def end() -> None:
            self._month.network.is_down = False
            self._network_up_at = self._month.time.now

        self._month.model.storms.append((self._month.time.now, self._month.time.now + lasts))
        self._during(lasts, end, is_fault=False)
        await self._month.users.accept_for_each()

    def _have_all_recovered(self) -> bool:
        """Return whether each endpoint has had a success since the last outage of our network."""
        if not self._network_up_at:
            return True
        return all(
            any(at >= self._network_up_at for at in endpoint.successes)
            for endpoint in self._month.model.endpoints.values()
            if endpoint.deleted_at is None
        )

    async def _egress_outage(self) -> None:
        self._month.network.is_egress_down = True
        self._month.model.note("the egress proxy fails")

        def end() -> None:
            self._month.network.is_egress_down = False

        lasts = self._month.random.choice((MINUTE, 2 * HOUR))
        self._month.model.storms.append((self._month.time.now, self._month.time.now + lasts))
        self._during(lasts, end, is_fault=False)

    async def _email_outage(self) -> None:
        self.emails_fail = True

        def end() -> None:
            self.emails_fail = False

        self._during(self._month.random.choice((HOUR, 4 * DAY)), end, is_fault=False)
