"""Operational events in the API: which endpoints are subscribed to them, and why an endpoint receives none."""

from typing import Any

from uplift_server.core import ids
from uplift_server.core.events.operational import OPERATIONAL_TYPES
from uplift_server.core.lifecycle import Status

from .conftest import parse
from .test_explanations import create_endpoint, explained


def test_the_catalog_has_the_types_in_their_group(server: Any) -> None:
    listed = server.operator.get("/v1/event-types?limit=500").json["data"]
    assert {each["name"] for each in listed if each["group"] == "operational"} == OPERATIONAL_TYPES


def test_the_filter_by_event_type_lists_only_endpoints_that_name_it(server: Any) -> None:
    owner = server.owner(server.account())
    everything = create_endpoint(owner)
    exact = create_endpoint(owner, "endpoint.warned")
    group = create_endpoint(owner, "endpoint.*", "movement.*")
    create_endpoint(owner, "delivery.failed")

    def listed(*types: str) -> set[str]:
        query = "&".join(f"event_type={each}" for each in types)
        return {each["id"] for each in owner.get(f"/v1/endpoints?{query}").json["data"]}

    assert listed("endpoint.warned") == {exact, group}
    assert listed("movement.analytics.created") == {everything, group}
    assert listed("endpoint.warned", "movement.analytics.created") == {everything, exact, group}


def test_an_endpoint_without_an_event_is_explained(server: Any) -> None:
    account = server.account()
    owner = server.owner(account)
    everything, subject, other, monitor = (
        create_endpoint(owner, *types) for types in ((), ("endpoint.*", "delivery.*"), ("movement.*",), ("endpoint.*",))
    )
    warned = server.event(account, {monitor: Status.PENDING}, type_name="endpoint.warned", object_id=subject)
    found = explained(owner, warned)
    assert found[monitor]["reason"] == "pending"
    assert {found[each]["reason"] for each in (everything, subject, other)} == {"not_subscribed"}
    assert "about itself" in found[subject]["text"]
    assert found[subject]["hint"] is None
    assert "name" in found[everything]["text"]
    assert "movement.*" in found[other]["text"]

    event_id = server.services.context.new_id()
    delivery = ids.delivery_id(event_id, parse(ids.ENDPOINT, subject))
    failed = server.event(account, {}, type_name="delivery.failed", object_id=delivery)
    assert "about itself" in explained(owner, failed)[subject]["text"]
    unknown = server.event(account, {}, type_name="delivery.failed")
    assert "about itself" not in explained(owner, unknown)[subject]["text"]


def test_a_replay_creates_no_operational_deliveries(server: Any) -> None:
    """Otherwise, an endpoint could receive operational events about itself."""
    account = server.account()
    owner = server.owner(account)
    endpoint = create_endpoint(owner, "endpoint.*", "movement.*")
    server.event(account, {}, type_name="endpoint.warned", object_id=endpoint)
    server.event(account, {})
    replay = {"endpoint": endpoint, "status": [], "include_missing": True, "dry_run": True}
    preview = owner.post("/v1/replays", replay)
    assert (preview.status, preview.json["count"]) == (200, 1)
