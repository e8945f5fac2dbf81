"""The engine operations that services use."""

from dataclasses import dataclass
from typing import Protocol

from uplift_server.delivery.health.endpoint_changes import EndpointChanges
from uplift_server.delivery.listening.relay import Relay
from uplift_server.delivery.sending.commands import Commands
from uplift_server.observe.counters import EngineCounters
from uplift_server.service.engine_status import EngineStatus
from uplift_server.store.replays import Replay


class ReplayChanges(Protocol):
    """Starts replays, and applies new states to existing replays."""

    def put(self, replay: Replay) -> None:
        """Start a new replay, or apply the new state of an existing replay."""


class ErasureStarts(Protocol):
    """Starts erasures."""

    def wake(self) -> None:
        """Start the stored erasures now, without waiting for the next regular check."""


@dataclass(frozen=True, slots=True)
class EngineLink:
    """The engine's interfaces that services use."""

    relay: Relay
    counters: EngineCounters
    endpoints: EndpointChanges
    commands: Commands
    replays: ReplayChanges
    erasures: ErasureStarts
    status: EngineStatus
