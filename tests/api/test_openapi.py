"""The OpenAPI document describes the routes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import jsonschema_rs
import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute

from uplift_server.api import routes as routes_package
from uplift_server.api.documentation.reference_samples import reference_data
from uplift_server.api.openapi import openapi_document
from uplift_server.api.openapi_operations import OPERATIONS
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.events import envelope
from uplift_server.core.events.catalog import EVENT_TYPES
from uplift_server.core.lifecycle import Status


@pytest.fixture(scope="module")
def document(server: Any) -> Any:
    """Return the document from the server."""
    return server.client(None).get("/openapi.json").json


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield the method and the path of each operation, and the operation."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def references(value: Any) -> Iterator[str]:
    """Yield each `$ref` in the document."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def test_the_document_is_complete(document: Any) -> None:
    """Each operation has a summary, a unique ID, an error response, its body and its path parameters."""
    for ref in references(document):
        _, components, kind, name = ref.split("/")
        assert name in document[components][kind]
    for method, path, operation in operations(document):
        assert operation["summary"]
        assert "application/problem+json" in operation["responses"]["default"]["content"]
        assert ("requestBody" in operation) == (method in {"post", "put", "patch"}), (method, path)
        named = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path))
        assert {*operation["tags"]} <= {each["name"] for each in document["tags"]}, (
            path,
            "Add the tag to api/openapi.py",
        )
    assert document["info"]["license"] == {"name": "Apache License 2.0", "identifier": "Apache-2.0"}
    assert document["security"] == [{"key": []}]
    assert document["paths"]["/healthz"]["get"]["security"] == []
    listed = document["paths"]["/v1/events"]["get"]["parameters"]
    assert {each["name"] for each in listed} >= {"limit", "cursor", "type", "created_after", "created_before", "order"}
    created = document["paths"]["/v1/endpoints"]["post"]["parameters"]
    assert {each["name"] for each in created} == {"Idempotency-Key", "Uplift-Account"}
    assert document["paths"]["/v1/events"]["post"]["responses"]["202"]


def test_operation_ids_are_the_names_of_the_library(document: Any) -> None:
    """Generated clients name their methods after the IDs, so the IDs never change."""
    ids = {f"{method.upper()} {path}": each["operationId"] for method, path, each in operations(document)}
    assert OPERATIONS.keys() == ids.keys(), "OPERATIONS of api/openapi_operations.py has calls that do not exist"
    assert len({*ids.values()}) == len(ids)
    assert not [each for each in ids.values() if not re.fullmatch(r"[a-z]+(_[a-z]+)+", each)]
    names: dict[str, str] = {call: each["python"] for call, each in reference_data()["calls"].items()}
    differing = [
        (call, ids[call])
        for call, name in names.items()
        if not re.fullmatch(name.replace(".", "_") if "." in name else f"{name}_[a-z]+", ids[call])
    ]
    assert not differing


def test_generated_requests_contain_only_the_given_fields(document: Any) -> None:
    """No field has a default, because generated clients would send it, and an update would change omitted fields."""
    bodies = [ref for _, _, each in operations(document) for ref in references(each.get("requestBody"))]
    schemas = document["components"]["schemas"]
    fields = [field for ref in bodies for field in schemas[ref.rpartition("/")[2]].get("properties", {}).values()]
    assert len(fields) > 50
    assert not [field for field in fields if "default" in field]
    assert schemas["EventNew"]["properties"]["data"]["additionalProperties"] is True


def test_a_call_without_an_entry_is_named() -> None:
    router = APIRouter()
    router.get("/v1/new-things/{thing}")(lambda thing: None)
    [route] = router.routes
    assert isinstance(route, APIRoute)
    with pytest.raises(LookupError, match=r"GET /v1/new-things/{thing} has no entry in OPERATIONS"):
        openapi_document([route], [route], "1", None)


def test_webhooks_describe_every_built_in_event_type(document: Any) -> None:
    assert {*document["webhooks"]} == {each.name for each in EVENT_TYPES}
    for each in EVENT_TYPES:
        webhook = document["webhooks"][each.name]["post"]
        schema = webhook["requestBody"]["content"]["application/json"]["schema"]
        body = envelope.build(str(uuid4()), each.name, each.api_version, 1, json.dumps(each.example).encode())
        check(document, schema, json.loads(body))
        with pytest.raises(jsonschema_rs.ValidationError):
            check(document, schema, {**json.loads(body), "type": "other"})


def test_the_document_lists_the_idempotent_calls(document: Any) -> None:
    """The document lists the same operations as the source code."""
    repeatable = {
        path
        for method, path, operation in operations(document)
        if {"Idempotency-Key"} & {each["name"] for each in operation.get("parameters", ())}
    }
    routes = Path(routes_package.__file__).parent.glob("*.py")
    pattern = re.compile(r'@router\.post\(\s*"([^"]+)"(?:(?!@router).)*?key_of\(request', re.DOTALL)
    implemented = {path for route in routes for path in pattern.findall(route.read_text(encoding="utf-8"))}
    assert repeatable == {*implemented, "/v1/events", "/v1/events/batch"}


def test_responses_match_their_schemas(server: Any, document: Any) -> None:
    """Covers objects, lists and errors, with the schemas of the document."""
    account = server.account()
    owner, operator = server.owner(account), server.operator
    endpoint = owner.post("/v1/endpoints", {"url": "https://example.com/a"})
    event = server.event(account, {endpoint.json["id"]: Status.PENDING})
    for leased in server.lease(endpoint.json["id"]):
        server.settle(leased, Outcome.SERVER_ERROR, Status.FAILED)
    delivery = owner.get(f"/v1/events/{event}/deliveries").json["data"][0]["id"]
    names = {"account": account, "endpoint": endpoint.json["id"], "event": event, "delivery": delivery}
    names["attempt"] = owner.get(f"/v1/attempts?delivery={delivery}").json["data"][0]["id"]
    names["name"] = "webhook.created"
    names["replay"] = owner.post("/v1/replays", {"endpoint": endpoint.json["id"]}).json["id"]
    names["erasure"] = operator.post(f"/v1/accounts/{account}/erasures", {"object_id": "x"}).json["id"]
    names["rejected_event"] = server.reject(account)
    server.reject(None)
    names["session"] = owner.post("/v1/listen-sessions").json["id"]
    checked = 0
    for method, path, operation in operations(document):
        content = operation["responses"].get("200", {}).get("content", {})
        if method != "get" or "application/json" not in content:
            continue
        for client in (owner, operator):
            response = client.get(path.format(**names))
            if response.status == 200:
                check(document, content["application/json"]["schema"], response.json)
                checked += 1
    assert checked > 20
    check(document, {"$ref": "#/components/schemas/Endpoint"}, endpoint.json)
    for rejected in (owner.get("/v1/accounts"), owner.get("/nope"), owner.post("/v1/endpoints", {"x": 1})):
        check(document, {"$ref": "#/components/schemas/Problem"}, rejected.json)


def check(document: Any, schema: Any, value: Any) -> None:
    """Validate a value against a schema of the document, and reject fields that it does not describe."""
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


def test_the_document_is_encoded_once(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client = server.client(None)
    first = client.get("/openapi.json")
    monkeypatch.delattr("uplift_server.api.routes.documentation.Content.of")
    assert client.get("/openapi.json").body == first.body
    compressed = client.get("/openapi.json", accept_encoding="gzip")
    assert (compressed.headers["content-encoding"], compressed.body) == ("gzip", first.body)
    assert client.call("HEAD", "/openapi.json").headers["content-length"] == first.headers["content-length"]
