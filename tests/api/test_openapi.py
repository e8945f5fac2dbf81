"""The OpenAPI document describes the routes."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from uplift_server.api import routes as routes_room
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Status


@pytest.fixture(scope="module")
def document(server: Any) -> Any:
    """The document as it is served."""
    return server.client(None).get("/openapi.json").json


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    """Every operation with its method and path."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def references(value: Any) -> Iterator[str]:
    """Every `$ref` in the document."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def test_the_document_is_complete(document: Any) -> None:
    """Every operation: a summary, an id of its own, refusals, a body where it takes one, its path parameters."""
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    schemas = document["components"]["schemas"]
    assert {ref.removeprefix("#/components/schemas/") for ref in references(document)} <= schemas.keys()
    for method, path, operation in operations(document):
        assert operation["summary"]
        assert "application/problem+json" in operation["responses"]["default"]["content"]
        assert ("requestBody" in operation) == (method in {"post", "put", "patch"}), (method, path)
        named = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path))
        assert operation["tags"]
    assert document["security"] == [{"key": []}]
    assert document["paths"]["/healthz"]["get"]["security"] == []
    listed = document["paths"]["/v1/events"]["get"]["parameters"]
    assert {each["name"] for each in listed} >= {"limit", "cursor", "type", "created_after", "created_before", "order"}
    created = document["paths"]["/v1/endpoints"]["post"]["parameters"]
    assert {each["name"] for each in created} == {"Idempotency-Key", "Uplift-Account"}
    assert document["paths"]["/v1/events"]["post"]["responses"]["202"]


def test_the_document_says_which_calls_may_be_repeated(document: Any) -> None:
    """Exactly the operations that repeat their first response."""
    repeatable = {
        path
        for method, path, operation in operations(document)
        if {"Idempotency-Key"} & {each["name"] for each in operation.get("parameters", ())}
    }
    routes = Path(routes_room.__file__).parent.glob("*.py")
    reading = re.compile(r'@router\.post\(\s*"([^"]+)"(?:(?!@router).)*?key_of\(request', re.DOTALL)
    read = {path for route in routes for path in reading.findall(route.read_text(encoding="utf-8"))}
    assert repeatable == {*read, "/v1/events", "/v1/events/batch"}


def test_real_answers_are_as_described(server: Any, document: Any) -> None:
    """Objects, lists and refusals of every kind, checked by the document's own schemas."""
    account = server.account()
    owner, operator = server.owner(account), server.operator
    endpoint = owner.post("/v1/endpoints", {"url": "https://example.com/a"})
    event = server.event(account, {endpoint.json["id"]: Status.PENDING})
    for leased in server.lease(endpoint.json["id"]):
        server.settle(leased, Outcome.SERVER_ERROR, Status.FAILED)
    delivery = owner.get(f"/v1/events/{event}/deliveries").json["data"][0]["id"]
    names = {"account": account, "endpoint": endpoint.json["id"], "event": event, "delivery": delivery}
    names["name"] = "webhook.created"
    names["replay"] = owner.post("/v1/replays", {"endpoint": endpoint.json["id"]}).json["id"]
    names["session"] = owner.post("/v1/listen-sessions").json["id"]
    checked = 0
    for method, path, operation in operations(document):
        content = operation["responses"].get("200", {}).get("content", {})
        if method != "get" or "application/json" not in content:
            continue
        for client in (owner, operator):
            answer = client.get(path.format(**names))
            if answer.status == 200:
                check(document, content["application/json"]["schema"], answer.json)
                checked += 1
    assert checked > 20
    check(document, {"$ref": "#/components/schemas/EndpointView"}, endpoint.json)
    for refused in (owner.get("/v1/accounts"), owner.get("/nope"), owner.post("/v1/endpoints", {"x": 1})):
        check(document, {"$ref": "#/components/schemas/Problem"}, refused.json)


def check(document: Any, schema: Any, value: Any) -> None:
    """Validate a value against a schema of the document, taking fields that are not described as an error."""
    closed = {name: each | {"additionalProperties": each.get("additionalProperties", False)}
              for name, each in document["components"]["schemas"].items() if "properties" in each}  # fmt: skip
    whole = schema | {"components": {"schemas": document["components"]["schemas"] | closed}}
    jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(value)


def test_the_document_has_an_etag(server: Any) -> None:
    client = server.client(None)
    first = client.get("/openapi.json")
    again = client.get("/openapi.json", if_none_match=first.headers["etag"])
    assert (first.headers["content-type"], again.status, again.body) == ("application/json", 304, b"")
    assert client.get("/openapi.json", if_none_match='"other"').body == first.body
