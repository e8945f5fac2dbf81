"""Which messages of the event stream are done: all their events are stored, and all rejected events are published."""

from collections.abc import Iterable

from uplift_server.delivery.streams.pull import Pull
from uplift_server.delivery.streams.stream_events import Source


class Progress:
    """Counts the events of each message that are not done yet. A message without such events can leave the stream."""

    def __init__(self, pull: Pull) -> None:
        self._pull = pull
        self._left: dict[int, int] = {}
        """The number of events that are not done, by the sequence number of their message."""

    def begin(self, sources: Iterable[Source]) -> None:
        """Add the events of new messages."""
        for source in sources:
            seq = source.message.seq
            self._left[seq] = self._left.get(seq, 0) + 1

    def note_done(self, source: Source) -> None:
        """Note that an event is stored, or rejected and published."""
        seq = source.message.seq
        self._left[seq] -= 1
        if not self._left[seq]:
            del self._left[seq]
            self._pull.note_stored(source.message)
