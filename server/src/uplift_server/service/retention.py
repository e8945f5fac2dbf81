"""The operation that resumes retention after the server's clock has jumped."""

from uplift_server.service.context import ServiceContext
from uplift_server.service.principals import Caller
from uplift_server.store import audit, retention_clock
from uplift_server.store.contract import Transaction


class Retention:
    """Lets operators resume retention after a clock jump."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def resume(self, caller: Caller) -> int:
        """Confirm that the clock is correct, and resume retention. Return the confirmed time (Unix ms)."""
        caller.require_operator()
        now = self._context.now()

        def resume(connection: Transaction) -> None:
            retention_clock.accept(connection, now=now)
            audit.add(connection, self._context.audit_entry(caller, "retention.resumed", "retention", {}, None))

        await self._context.run_shielded(self._context.database.write(resume))
        return now
