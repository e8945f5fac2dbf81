"""The receiver of notifications from other processes."""

import json
from typing import Any, Final

from uplift_server.delivery.cluster.announcer import ClusteredAnnouncer
from uplift_server.delivery.cluster.cache_sync import CacheSync
from uplift_server.delivery.cluster.commands import ClusteredCommands
from uplift_server.delivery.cluster.notifier import NotificationKind
from uplift_server.delivery.cluster.shards import ClusteredShards
from uplift_server.delivery.cluster.state import ClusterState
from uplift_server.delivery.listening.relay import Relay
from uplift_server.delivery.listening.streams import EndReason
from uplift_server.delivery.maintenance.erasures import ErasedEvents
from uplift_server.delivery.scheduling.due import DueEndpoints
from uplift_server.store.schema_processes import CHANGED

_WITH_SENDER: Final = frozenset(
    {NotificationKind.DUE, NotificationKind.LISTENED, NotificationKind.STORED, NotificationKind.SESSION_ENDED}
)
"""Kinds of notifications that begin with the sender's process ID. A process ignores its own notifications."""


class NotificationReceiver:
    """Passes each notification to the part of the engine that handles it."""

    def __init__(
        self,
        state: ClusterState,
        shards: ClusteredShards,
        due: DueEndpoints,
        cache_sync: CacheSync,
        commands: ClusteredCommands,
        relay: Relay,
        announcer: ClusteredAnnouncer,
        erased_events: ErasedEvents,
    ) -> None:
        self._state = state
        self._shards = shards
        self._due = due
        self._cache_sync = cache_sync
        self._commands = commands
        self._relay = relay
        self._announcer = announcer
        self._erased_events = erased_events

    def receive(self, text: str) -> None:
        """Handle a notification. Ignore unknown notifications, which other programs or later releases can send."""
        if text == CHANGED:
            self._cache_sync.wake()
            return
        try:
            kind, *parts = json.loads(text)
            self._act(NotificationKind(kind), parts)
        except (ValueError, TypeError, IndexError):
            return

    def _act(self, kind: NotificationKind, parts: list[Any]) -> None:
        if kind in _WITH_SENDER and parts[0] == self._state.process_id:
            return
        match kind:
            case NotificationKind.DUE:
                for seq in parts[1]:
                    if self._shards.owns(seq):
                        self._due.note_due(seq)
            case NotificationKind.STORED:
                for account_seq in parts[1]:
                    self._relay.wake(account_seq)
            case NotificationKind.LISTENED:
                self._announcer.listened_elsewhere(*parts)
            case NotificationKind.SESSION_ENDED:
                _, session_id, why, at = parts
                self._relay.end_here(bytes.fromhex(session_id), EndReason(why), at)
            case NotificationKind.WORKERS_CHANGED:
                self._state.request_heartbeat()
            case NotificationKind.COMMANDS:
                self._commands.wake()
            case NotificationKind.ERASED:
                self._erased_events.forget(*parts)
