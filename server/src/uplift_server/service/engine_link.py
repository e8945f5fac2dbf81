"""What services need of the engine, which is wired to them from outside."""

from collections.abc import Collection, Sequence
from typing import Protocol

from uplift_server.core.scheduling.waiting import HeldUpBy
from uplift_server.delivery.health.outage_guard import Outage
from uplift_server.delivery.listening.relay import Relay
from uplift_server.delivery.scheduling.lanes import Load
from uplift_server.delivery.sending.commands import Commands
from uplift_server.observe.counters import EngineCounters
from uplift_server.store.processes import Process
from uplift_server.store.replays import Replay


class EngineLink(Protocol):
    """What services need of the engine."""

    @property
    def relay(self) -> Relay:
        """The streams to developers' machines."""

    @property
    def measures(self) -> EngineCounters:
        """What has become of events, attempts and deliveries."""

    def note_due(self, endpoint_seq: int) -> None:
        """Something for an endpoint has become due in the database."""

    def forget(self, endpoint_seq: int) -> None:
        """An endpoint is gone: its deliveries are to be cancelled."""

    def switched_off(self, endpoint_seq: int) -> None:
        """An endpoint was paused or disabled, in store and cache: what waits for it is to be held."""

    async def finish_holding(self, endpoint_seq: int, within_ms: int) -> bool:
        """Before an endpoint is enabled: hold all that was pending for it; False where that takes longer."""

    def switched_on(self, endpoint_seq: int) -> None:
        """An endpoint was enabled, in store and cache: what it holds is let go, its health begins anew."""

    def treat_held(self, endpoint_seq: int) -> None:
        """What becomes of what an enabled endpoint holds was changed."""

    @property
    def commands(self) -> Commands:
        """Cancel, resend and test."""

    def replay_changed(self, replay: Replay) -> None:
        """A replay was made, paused, resumed or cancelled."""

    def waiting_events(self, endpoint_seq: int) -> Collection[int] | None:
        """The numbers of the events whose deliveries wait leased for an endpoint; None if another process has it."""

    def next_probe_at(self, endpoint_seq: int) -> int | None:
        """When an endpoint whose breaker is open is tried next (Unix ms)."""

    def disable_at(self, endpoint_seq: int) -> int | None:
        """When an endpoint that fails will be disabled unless it succeeds before (Unix ms)."""

    def own_load(self) -> Load:
        """How much this process has in hand now."""

    def sends(self) -> bool:
        """Whether this process, or another on the database, may begin an attempt now."""

    def unheard_ms(self) -> int | None:
        """For how long other processes have not heard of this one, where that is so long that they do without it."""

    def load(self) -> Load:
        """How much all processes on the database have in hand."""

    def processes(self) -> Sequence[Process] | None:
        """Those that share the database and live, as far as is known now; None where there can be no other."""

    def held_up_by(self, endpoint_seq: int) -> HeldUpBy:
        """What keeps what is due for an endpoint, if anything is, from being attempted."""

    def mass_failure(self) -> Outage | None:
        """The mass failure that goes on, while nobody is warned or disabled."""

    def warn_at(self, endpoint_seq: int) -> int | None:
        """When the contacts of an endpoint that fails will be told unless it succeeds before (Unix ms)."""
