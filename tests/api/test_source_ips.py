"""The public list of egress IPs."""

from typing import Any


def test_current_and_upcoming_addresses_are_public(server: Any) -> None:
    """An address whose start time is in the past is current."""
    response = server.client(None).get("/v1/source-ips")
    assert response.json == {
        "current": ["54.245.28.22", "192.0.2.8"],
        "upcoming": [{"address": "192.0.2.7", "from": "2999-01-01T00:00:00.000Z"}],
    }
