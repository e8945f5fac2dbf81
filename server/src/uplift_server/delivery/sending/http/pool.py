"""The pool of idle connections to receivers."""

from itertools import islice

from uplift_server.delivery.sending.http.connection import Connection
from uplift_server.delivery.sending.http.settings import SenderSettings
from uplift_server.delivery.targets import Target


class Pool:
    """Idle connections by target. The most recently used connection is reused first. All times are monotonic seconds.

    Reuse needs no address check, because the address was checked when the connection was opened. The pool uses dicts as
    ordered sets, so that it can take the newest, drop the oldest, and remove any connection in O(1).
    """

    def __init__(self, settings: SenderSettings) -> None:
        self._keep_alive = settings.keep_alive_ms / 1000
        self._per_target_max = settings.idle_connections_per_target_max
        self._max = settings.idle_connections_max
        self._by_target: dict[Target, dict[Connection, None]] = {}
        self._by_age: dict[Connection, None] = {}

    def __len__(self) -> int:
        return len(self._by_age)

    def take(self, target: Target, now: float) -> Connection | None:
        """Remove and return an idle connection to `target`, or return None."""
        idle = self._by_target.get(target)
        while idle:
            connection, _ = idle.popitem()
            del self._by_age[connection]
            if now < connection.retire_at:
                return connection
            connection.retire()
        return None

    def put(self, connection: Connection, now: float) -> None:
        """Add an idle connection, unless it is too old or its target already has enough idle connections.

        If the pool is full, close the connection that has been idle longest.
        """
        if now >= connection.retire_at:
            connection.retire()
            return
        idle = self._by_target.get(connection.target)
        if idle is None:
            idle = self._by_target[connection.target] = {}
        if len(idle) >= self._per_target_max or self._max == 0:
            connection.retire()
            return
        if len(self._by_age) >= self._max:
            self._retire(next(iter(self._by_age)))
        connection.idle_since = now
        idle[connection] = None
        self._by_age[connection] = None

    def discard(self, connection: Connection) -> None:
        """Remove a closed connection, if the pool contains it."""
        if connection in self._by_age:
            del self._by_age[connection]
            del self._by_target[connection.target][connection]

    def close_oldest(self, count: int) -> int:
        """Close up to `count` connections, those with the longest idle time first.

        Return the number of closed connections.
        """
        oldest = list(islice(self._by_age, count))
        for connection in oldest:
            self._retire(connection)
        return len(oldest)

    def expire(self, now: float) -> None:
        """Close connections that have been idle for too long, and remove targets without connections."""
        oldest_allowed = now - self._keep_alive
        while self._by_age:
            connection = next(iter(self._by_age))
            if connection.idle_since > oldest_allowed:
                break
            self._retire(connection)
        for target in [target for target, idle in self._by_target.items() if not idle]:
            del self._by_target[target]

    def _retire(self, connection: Connection) -> None:
        self.discard(connection)
        connection.retire()
