"""The parts of the engine that services use."""

from dataclasses import dataclass
from typing import Protocol

from uplift_server.delivery.health.endpoint_changes import EndpointChanges
from uplift_server.delivery.listening.relay import Relay
from uplift_server.delivery.sending.commands import Commands
from uplift_server.observe.counters import EngineCounters
from uplift_server.service.engine_status import EngineStatus
from uplift_server.store.replays import Replay


class ReplayChanges(Protocol):
    """Applies changes to replays."""

    def put(self, replay: Replay) -> None:
        """Start a replay, or apply its new state."""


class ErasureStarts(Protocol):
    """Starts the erasures that services create."""

    def wake(self) -> None:
        """Start new erasures now, without waiting for the next regular check."""


@dataclass(frozen=True, slots=True)
class EngineLink:
    """The part of the engine that services can call."""

    relay: Relay
    counters: EngineCounters
    endpoints: EndpointChanges
    commands: Commands
    replays: ReplayChanges
    erasures: ErasureStarts
    status: EngineStatus
