"""Operations of operators on retention."""

from uplift_server.service.means import Means
from uplift_server.service.principals import Caller
from uplift_server.store import audit, retention_clock
from uplift_server.store.contract import Transaction


class Retention:
    """Resumes retention after a clock jump."""

    def __init__(self, means: Means) -> None:
        self._means = means

    async def resume(self, caller: Caller) -> int:
        """Confirm that the clock is right, and resume retention. Return the confirmed time (Unix ms)."""
        caller.require_operator()
        now = self._means.now()

        def resume(connection: Transaction) -> None:
            retention_clock.accept(connection, now=now)
            audit.add(connection, self._means.entry(caller, "retention.resumed", "retention", {}, None))

        await self._means.carry_out(self._means.database.write(resume))
        return now
