"""The problems of the server and its endpoints in the API."""

from typing import Any

from uplift_server.core.lifecycle import Status

from .test_metrics import expire_readings
from .test_operator_views import break_endpoint, create_endpoint
from .test_statistics import update_statistics


def test_an_operator_sees_problems_causes_and_backlog(server: Any) -> None:
    account = server.account("Fleet API")
    failing, healthy = (
        create_endpoint(server, account, "https://a.example.com/?token=SECRET"),
        create_endpoint(server, account),
    )
    start = server.services.context.now()
    break_endpoint(server, failing, since=start - 60_000)
    for endpoint in (failing, failing, healthy):
        server.event(account, {endpoint: Status.PENDING}, created_at=start - 10_000)
    update_statistics(server)
    expire_readings(server)

    response = server.operator.get("/v1/fleet")

    found = response.json
    assert found["status"] == "critical"
    assert found["read_at"] is not None
    [problem] = [each for each in found["problems"] if each["code"] == "endpoints_failing"]
    assert " of " in problem["title"]
    assert set(problem) == {"code", "severity", "title", "extent", "next_step", "since"}
    # The registration event is also pending.
    [group] = [each for each in found["failing"] if each["cause"].startswith("status_5")]
    assert (group["endpoints"], group["accounts"], group["pending_deliveries"]) == (1, 1, 3)
    assert found["pending_deliveries"] >= 5
    assert found["endpoints"]["failing"] == 1
    assert found["mass_failure"] is False
    assert "SECRET" not in str(found)

    shown = server.client(server.operator_key, account).get(f"/v1/endpoints/{failing}").json
    assert shown["pending_deliveries"] == 3
    assert shown["oldest_due_at"] is not None


def test_an_account_key_does_not_see_the_fleet(server: Any) -> None:
    account = server.account("Curious about the fleet")
    assert server.owner(account).get("/v1/fleet").status == 403
