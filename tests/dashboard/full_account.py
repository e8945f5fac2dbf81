"""An account with one object of each kind."""

from typing import Any
from uuid import uuid4

from tests.dashboard.visitors import Guest, member
from tests.e2e.harness import TYPE, Server, deliveries_of, settled, wait_for
from tests.rejected_events import reject

STATE_PATHS = (
    "/v1/accounts/{account}/keys",
    "/v1/accounts/{account}/members",
    "/v1/event-types",
    "/v1/endpoints",
    "/v1/events",
    "/v1/deliveries",
    "/v1/deliveries/{delivery}/attempts",
    "/v1/replays",
    "/v1/accounts/{account}/erasures",
    "/v1/listen-sessions",
    "/v1/audit-log",
)


class FullAccount:
    """An account whose deliveries are completed, so that only tests change it."""

    def __init__(self, server: Server, url: str, name: str = "Rapids Academy") -> None:
        self.server = server
        self.id, self.api = server.account(name)
        endpoint = self.api.endpoint(url)["id"]
        event = self.api.send(1).json["id"]
        [delivery] = deliveries_of(self.api, event)
        settled(self.api, delivery["id"])
        # Also wait for the delivery of the registration event.
        wait_for(lambda: not self.api.ok("GET", "/v1/deliveries?status=pending")["data"], "no delivery is pending")
        replay = self.api.ok("POST", "/v1/replays", {"endpoint": endpoint, "status": ["failed"]})["id"]
        erasures = f"/v1/accounts/{self.id}/erasures"
        erasure = self.api.ok("POST", erasures, {"event_ids": [str(uuid4())]})["id"]
        wait_for(lambda: self.api.ok("GET", f"{erasures}/{erasure}")["completed_at"], "the erasure is completed")
        reject(server.place, self.id, event_id="0197f0c2")
        key = self.api.ok("POST", f"/v1/accounts/{self.id}/keys", {"name": "own"})
        member(server, self.id, "member", f"walked@{self.id[4:]}.example")
        people = f"/v1/accounts/{self.id}/members"
        invited = {"email": f"invited@{self.id[4:]}.example", "role": "member"}
        # A new server counts pending deliveries in the background.
        counted = f"/v1/endpoints/{endpoint}"
        wait_for(lambda: self.api.ok("GET", counted)["pending_deliveries"] == 0, "pending deliveries are counted")
        self.ids = {
            "account": self.id,
            "endpoint": endpoint,
            "event": event,
            "delivery": delivery["id"],
            "replay": replay,
            "erasure": erasure,
            "key": key["id"],
            "service_key": server.api().ok("POST", "/v1/keys", {"name": "service", "scopes": []})["id"],
            "link": server.api().ok("POST", f"/v1/accounts/{self.id}/portal-links")["id"],
            "session": server.api(key["key"]).ok("POST", "/v1/listen-sessions")["id"],
            "member": server.api().ok("GET", people)["data"][0]["id"],
            "invitation": server.api().ok("POST", people, invited)["id"],
            "type": TYPE,
            "name": TYPE,
        }
        """IDs of the objects, by the names of path parameters."""

    def member(self, role: str = "owner") -> Guest:
        """Return a signed-in member of the account."""
        return member(self.server, self.id, role)

    def state(self) -> dict[str, Any]:
        """Return everything that forms can change."""
        return {path: self.api.ok("GET", f"{path.format(**self.ids)}?limit=500") for path in STATE_PATHS}
