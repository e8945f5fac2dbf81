"""After a clock jump, retention resumes when an operator confirms the clock over HTTP."""

from typing import Any

from uplift_server.core.timestamps import format_timestamp
from uplift_server.store import retention_clock

DAY = 24 * 3600 * 1000


def test_an_operator_confirms_the_clock(server: Any) -> None:
    now = server.services.context.now()

    def observe_clock() -> int | None:
        return server.run(
            lambda: server.services.context.database.write(
                lambda c: retention_clock.observe(c, now=now, retention_ms=30 * DAY)
            )
        )

    server.run(lambda: server.services.context.database.write(lambda c: retention_clock.accept(c, now=now - 20 * DAY)))
    assert observe_clock() == now - 20 * DAY

    response = server.operator.post("/v1/retention/resume")

    assert response.status == 200
    assert response.json["resumed_at"] >= format_timestamp(now)
    assert observe_clock() is None
    [entry] = server.operator.get("/v1/audit-log?action=retention.resumed").json["data"]
    assert entry["actor"]["kind"] == "operator"


def test_an_unknown_field_is_reported(server: Any) -> None:
    assert server.operator.post("/v1/retention/resume", {"force": True}).problems == {("force", "unknown_field")}
