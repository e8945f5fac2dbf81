"""Versions of objects in `ETag` and `If-Match`, and the paths of created objects in `Location`."""

from collections.abc import Callable
from typing import Any

import pytest

URL = "https://example.com/uplift"
_number = iter(range(1_000_000))


def _account(server: Any) -> tuple[Any, str, dict[str, Any]]:
    return server.operator, f"/v1/accounts/{server.account()}", {"contact_emails": ["coach@example.com"]}


def _endpoint(server: Any) -> tuple[Any, str, dict[str, Any]]:
    owner = server.owner(server.account())
    endpoint = owner.post("/v1/endpoints", {"url": URL}).json["id"]
    return owner, f"/v1/endpoints/{endpoint}", {"description": "Pitching"}


OBJECTS = {"account": _account, "endpoint": _endpoint}
Make = Callable[[Any], tuple[Any, str, dict[str, Any]]]


@pytest.mark.parametrize("make", OBJECTS.values(), ids=OBJECTS)
def test_an_update_of_a_stale_version_changes_nothing(server: Any, make: Make) -> None:
    client, path, change = make(server)
    read = client.get(path)
    etag = read.headers["etag"]
    assert client.get(path).headers["etag"] == etag
    changed = client.patch(path, change, if_match=etag)
    assert (changed.status, client.get(path).headers["etag"]) == (200, changed.headers["etag"])
    for stale in (etag, '"other"', "", "W/" + etag):
        rejected = client.patch(path, {next(iter(change)): [] if "contact" in str(change) else ""}, if_match=stale)
        assert (rejected.status, rejected.code) == (412, "precondition_failed"), stale
    assert client.get(path).json == changed.json
    for fresh in (f'"other", {changed.headers["etag"]}', "*"):
        assert client.patch(path, change, if_match=fresh).status == 200
    weak = f"W/{client.get(path).headers['etag']}"
    assert client.patch(path, change, if_match=weak).status == 200
    assert client.patch(path, {"no_such_field": 1}, if_match=etag).status == 422


@pytest.mark.parametrize("make", OBJECTS.values(), ids=OBJECTS)
def test_each_change_has_a_new_version_within_a_millisecond(server: Any, make: Make) -> None:
    """A request that changes nothing keeps the version."""
    client, path, change = make(server)
    seen = {client.get(path).headers["etag"]}
    for number in range(20):
        changed = client.patch(path, {"metadata": {"number": str(number)}})
        assert client.patch(path, {"metadata": {"number": str(number)}}).headers["etag"] == changed.headers["etag"]
        seen.add(changed.headers["etag"])
    assert len(seen) == 21
    assert client.patch(path, change).json["updated_at"] >= changed.json["updated_at"]


def test_the_version_of_an_endpoint_changes_with_its_state_and_secret(server: Any) -> None:
    owner, path, change = _endpoint(server)
    read = owner.get(path).headers["etag"]
    paused = owner.post(f"{path}/pause", {}).headers["etag"]
    assert paused == owner.get(path).headers["etag"] != read
    assert owner.patch(path, change, if_match=read).status == 412
    assert owner.post(f"{path}/secret/rotate", {}).status == 200
    assert owner.patch(path, change, if_match=paused).status == 412


def test_a_recreated_object_has_a_new_version(server: Any) -> None:
    owner = server.owner(server.account())
    first = owner.post("/v1/endpoints", {"url": URL, "uid": "main"}).headers["etag"]
    owner.delete("/v1/endpoints/main")
    owner.post("/v1/endpoints", {"url": URL, "uid": "main"})
    assert owner.patch("/v1/endpoints/main", {"description": "x"}, if_match=first).status == 412


def test_put_of_a_stale_event_type_changes_nothing(server: Any) -> None:
    path = f"/v1/event-types/versions.t{next(_number)}"
    operator = server.operator
    assert operator.put(path, {"description": "a"}, if_match="*").status == 412
    created = operator.put(path, {"description": "a"})
    assert (created.status, created.headers["location"]) == (201, path)
    assert operator.get(path).headers["etag"] == created.headers["etag"]
    changed = operator.put(path, {"description": "b"}, if_match=created.headers["etag"])
    assert (changed.status, changed.headers.get("location")) == (200, None)
    assert operator.put(path, {"description": "c"}, if_match=created.headers["etag"]).code == "precondition_failed"
    assert operator.get(path).json == changed.json


def test_every_created_object_has_its_path_in_location(server: Any) -> None:
    """Repeated requests get the same header. A GET of the path returns the object, if the API has this route."""
    uid = f"club-{next(_number)}"
    created = server.operator.post("/v1/accounts", {"name": "Club", "uid": uid})
    account = created.json["id"]
    owner = server.owner(account)
    endpoint = owner.post("/v1/endpoints", {"url": URL}, idempotency_key="e")
    again = owner.post("/v1/endpoints", {"url": URL}, idempotency_key="e")
    assert again.headers["location"] == endpoint.headers["location"]
    assert again.headers["etag"] == endpoint.headers["etag"]
    replay = owner.post("/v1/replays", {"endpoint": endpoint.json["id"]})
    session = owner.post("/v1/listen-sessions")
    for client, response in ((server.operator, created), (owner, endpoint), (owner, replay), (owner, session)):
        assert response.status == 201
        found = client.get(response.headers["location"])
        assert (found.status, found.json["id"]) == (200, response.json["id"])
    path = f"/v1/accounts/{uid}"
    key = server.operator.post(f"{path}/keys", {"name": "a"})
    assert key.headers["location"] == f"/v1/accounts/{account}/keys/{key.json['id']}"
    invited = server.operator.post(f"{path}/members", {"email": "ana@example.com", "role": "member"})
    assert invited.headers["location"] == f"/v1/accounts/{account}/invitations/{invited.json['id']}"
    link = server.operator.post(f"{path}/portal-links", {})
    assert link.headers["location"].startswith(f"/v1/accounts/{account}/portal-links/lnk_")
    assert server.operator.post("/v1/sign-in-links", {}).headers["location"].startswith("/v1/sign-in-links/lnk_")


def test_the_document_describes_the_headers_of_every_created_object(server: Any) -> None:
    document = server.client(None).get("/openapi.json").json
    created = [
        operation["responses"]["201"]
        for operations in document["paths"].values()
        for operation in operations.values()
        if "201" in operation["responses"]
    ]
    assert len(created) > 8
    assert all("Location" in response["headers"] for response in created)
