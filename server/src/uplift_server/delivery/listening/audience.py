"""Tracks the accounts that have listen streams, in this process and in other processes."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from uplift_server.delivery.listening.streams import EndReason, Stream


class Audience:
    """The accounts with a listen stream in this process or in another process."""

    def __init__(self) -> None:
        self.here: dict[int, set[Stream]] = {}
        """The streams of this process, by account."""
        self._elsewhere: frozenset[int] = frozenset()
        self.accounts: Collection[int] = self.here
        """All accounts with a listen stream in any process. Ingest looks up the account of each event here."""

    def add(self, stream: "Stream") -> bool:
        """Add a stream of this process. Return whether it is the account's first stream in this process."""
        of_account = self.here.setdefault(stream.session.account_seq, set())
        of_account.add(stream)
        self._update()
        return len(of_account) == 1

    def remove(self, stream: "Stream") -> bool:
        """Remove a stream of this process. Return whether it was the account's last stream in this process."""
        of_account = self.here.get(stream.session.account_seq)
        if of_account is None:
            return False
        of_account.discard(stream)
        if of_account:
            return False
        del self.here[stream.session.account_seq]
        self._update()
        return True

    def listens_elsewhere(self, account_seq: int) -> bool:
        """Return whether another process has a stream for an account."""
        return account_seq in self._elsewhere

    def set_elsewhere(self, account_seqs: frozenset[int]) -> None:
        """Set the accounts that have streams in other processes."""
        self._elsewhere = account_seqs
        self._update()

    def _update(self) -> None:
        self.accounts = self._elsewhere.union(self.here) if self._elsewhere else self.here


class Announcer(Protocol):
    """The interface that announces listen streams and stored events to other processes."""

    def streams_changed(self) -> None:
        """Announce that an account's first stream in this process started, or that its last stream ended."""

    def events_stored(self, account_seq: int) -> None:
        """Wake the streams of an account in other processes."""

    def session_ended(self, session_id: bytes, why: "EndReason", at: int) -> None:
        """End the streams of a listen session in the other processes.

        Streams that began at or after `at` (Unix ms) do not end.
        """


class NoAnnouncer:
    """The announcer of a server with only one process. It does nothing."""

    def streams_changed(self) -> None:
        """Do nothing: there are no other processes."""

    def events_stored(self, account_seq: int) -> None:
        """Do nothing: there are no other processes."""

    def session_ended(self, session_id: bytes, why: "EndReason", at: int) -> None:
        """Do nothing: there are no other processes."""
