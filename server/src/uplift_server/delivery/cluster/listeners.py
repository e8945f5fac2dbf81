"""Streams to developers' machines where several processes take events: whoever takes some says so to whoever streams.

Processes say for which accounts they stream, again with every heartbeat, so that nothing is sent where nobody listens.
"""

from collections.abc import Iterable
from typing import Final

from uplift_server.delivery.clock import Clock
from uplift_server.delivery.cluster.notifier import Notifier
from uplift_server.delivery.ingest import Acceptor
from uplift_server.delivery.listening.relay import Relay
from uplift_server.delivery.listening.streams import Ending

HEARD_FOR_MS: Final = 5_000
"""How long it counts that a process streams for some accounts, unless it says so again."""


class Listeners:
    """Who listens elsewhere, and who does here."""

    def __init__(self, relay: Relay, acceptor: Acceptor, post: Notifier, clock: Clock) -> None:
        self._relay = relay
        self._acceptor = acceptor
        self._post = post
        self._clock = clock
        self._heard: dict[int, tuple[frozenset[int], int]] = {}
        """By process, the accounts it streams for, and until when that counts (Unix ms)."""
        self._elsewhere: frozenset[int] = frozenset()
        acceptor.on_stored = self._stored
        relay.on_listened = self._listened
        relay.on_ended = self._ended
        post.on_listened = self._heard_of
        post.on_stored = self._stored_elsewhere
        post.on_ended = self._ended_elsewhere

    def tell_again(self) -> None:
        """Say who listens here, as with every heartbeat, and forget those of whom it is said no more."""
        if self._relay.listened:
            self._post.tell_listened(self._relay.listened)
        now = self._clock.now_ms()
        if any(until <= now for _, until in self._heard.values()):
            self._heard = {process: heard for process, heard in self._heard.items() if heard[1] > now}
            self._note()

    def _listened(self) -> None:
        self._post.tell_listened(self._relay.listened)
        self._note()

    def _heard_of(self, process: int, account_seqs: Iterable[int]) -> None:
        self._heard[process] = frozenset(account_seqs), self._clock.now_ms() + HEARD_FOR_MS
        self._note()

    def _note(self) -> None:
        self._elsewhere = frozenset().union(*(account_seqs for account_seqs, _ in self._heard.values()))
        self._acceptor.listened = self._elsewhere.union(self._relay.listened)

    def _stored(self, account_seq: int) -> None:
        self._relay.note_accepted(account_seq)
        if account_seq in self._elsewhere:
            self._post.tell_stored(account_seq)

    def _stored_elsewhere(self, account_seqs: Iterable[int]) -> None:
        for account_seq in account_seqs:
            self._relay.note_accepted(account_seq)

    def _ended(self, session_id: bytes, why: Ending, at: int) -> None:
        self._post.tell_ended(session_id.hex(), why.value, at)

    def _ended_elsewhere(self, session_id: str, why: str, at: int) -> None:
        self._relay.end_here(bytes.fromhex(session_id), Ending(why), at)
