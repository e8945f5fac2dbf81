"""The OpenAPI document: FastAPI's description of the routes, and the parts that FastAPI does not describe.

These parts are request bodies, query parameters, errors, webhooks and the ingest routes.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.routing import BaseRoute

from uplift_server.api.object_headers import expected_versions
from uplift_server.api.openapi_errors import PROBLEM, RESPONSE_HEADERS, error_responses, headers_of, success_headers
from uplift_server.api.openapi_operations import OPERATIONS
from uplift_server.api.openapi_webhooks import WEBHOOK_PARAMETERS, event_schemas, webhooks
from uplift_server.api.reading import BodyReader, QueryReader, key_of
from uplift_server.api.route_readers import readers_of
from uplift_server.api.routes.system import PUBLIC
from uplift_server.api.views import AccountView, EndpointView, EventTypeView
from uplift_server.core.limits import BATCH_EVENTS_MAX, EVENT_DATA_BYTES_MAX, ORDERING_KEY_CHARACTERS_MAX

_DESCRIPTION: Final = (
    "Manage endpoints, inspect deliveries, and send events. All bodies are JSON. "
    "Authenticate with `Authorization: Bearer <key>`."
)
_LICENSE: Final = {"name": "Apache License 2.0", "identifier": "Apache-2.0"}
_TAGS: Final = {
    "Accounts": "Accounts, and their API keys, members, invitations and dashboard links.",
    "Event types": "The event catalog.",
    "Endpoints": "URLs that receive events, with their subscriptions, secrets, settings and health.",
    "Events": "Send events and read them.",
    "Deliveries": "Deliveries of events to endpoints, and their attempts.",
    "Audit log": "Actions by people and programs.",
    "Replays": "Jobs that resend many deliveries.",
    "Erasures": "Erasure of personal data.",
    "Statistics": "Counts of deliveries and attempts.",
    "Server": "The server's health, metrics and documentation.",
    "Listen sessions": "Streams of events to developers' machines.",
    "Webhooks": "The requests that the server sends to your endpoints.",
}
_FASTAPI_DESCRIPTION: Final = "Successful Response"
_REF: Final = "#/components/schemas/{model}"
_JSON: Final = "application/json"
_NULL: Final = {"type": "null"}
_LITERAL: Final = frozenset({"const", "enum", "examples"})
"""JSON Schema keywords whose values are not schemas."""
_NAMES: Final = {
    "KeyView": "ApiKey",
    "OneEventView": "EventWithBody",
    "NumbersView": "Totals",
    "Reason": "ExplanationReason",
    "RequestView": "AttemptRequest",
    "ResponseView": "AttemptResponse",
    "SecretView": "EndpointSecret",
}
"""Public names for some schemas. Every other schema has its model's name without the suffix `View`.

A schema must not have the same name as one of its fields, because generated Python code would use the name twice.
"""
_ACCOUNT_HEADER: Final = {
    "name": "Uplift-Account",
    "in": "header",
    "required": False,
    "description": "ID or uid of the account to use. Only for operator keys and service keys.",
    "schema": {"type": "string"},
}
_KEY_HEADER: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A repeated request with the same key and body returns the same object.",
    "schema": {"type": "string"},
}
_INCLUDE: Final = {
    "name": "include",
    "in": "query",
    "required": False,
    "description": "`endpoints`: list the endpoints that receive each event. This needs an additional database read.",
    "schema": {"type": "string", "enum": ["endpoints"]},
}
_IF_MATCH: Final = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": "`ETag` of the object that you read. If the object changed after you read it, the call returns 412.",
    "schema": {"type": "string"},
}
_VERSIONED: Final = (AccountView, EndpointView, EventTypeView)
"""The response models of objects that have an ETag."""
_TIMESTAMP: Final = {"type": "string", "format": "date-time"}
_EVENT_FIELDS: Final = {
    "type": {"type": "string", "description": "Event type from the catalog."},
    "data": {
        "type": "object",
        "additionalProperties": True,
        "description": f"Content of the event, sent unchanged. At most {EVENT_DATA_BYTES_MAX} bytes.",
    },
    "id": {"type": "string", "format": "uuid", "description": "Event ID. Default: a generated UUID."},
    "idempotency_key": {
        "type": "string",
        "description": "Key that makes the request safe to repeat. A repeated key does not create a second event.",
    },
    "expires_at": {**_TIMESTAMP, "description": "The server does not start attempts at or after this time."},
    "ordering_key": {
        "type": "string",
        "minLength": 1,
        "maxLength": ORDERING_KEY_CHARACTERS_MAX,
        "description": "Endpoints whose `ordering` is `key` receive events with the same ordering key in order.",
    },
}
_ACCEPTED: Final = {
    "type": "object",
    "required": ["id", "type", "created_at", "duplicate"],
    "properties": {
        "id": {"type": "string", "format": "uuid", "description": "Event ID."},
        "type": {"type": "string", "description": "Event type."},
        "created_at": {**_TIMESTAMP, "description": "When the server accepted the event."},
        "duplicate": {"type": "boolean", "description": "Whether an earlier request created the event."},
        "endpoints": {
            "type": ["array", "null"],
            "items": {"type": "string"},
            "description": "IDs of the endpoints that receive the event. Only with `include=endpoints`. Null if the"
            " database did not respond in time.",
        },
    },
}
_INGEST_SCHEMAS: Final = {
    "EventNew": {
        "type": "object",
        "additionalProperties": False,
        "required": ["type", "data"],
        "properties": _EVENT_FIELDS,
    },
    "EventBatchNew": {
        "type": "object",
        "additionalProperties": False,
        "required": ["events"],
        "properties": {
            "events": {
                "type": "array",
                "minItems": 1,
                "maxItems": BATCH_EVENTS_MAX,
                "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["type", "data"],
                    "properties": {"account": {"type": "string", "description": "Account ID or uid."}, **_EVENT_FIELDS},
                },
            }
        },
    },
    "EventAccepted": _ACCEPTED,
    "EventBatchAccepted": {
        "type": "object",
        "required": ["data"],
        "properties": {"data": {"type": "array", "items": {"$ref": "#/components/schemas/EventAccepted"}}},
    },
}


def openapi_document(
    mounted: Sequence[BaseRoute], routes: Iterable[APIRoute], version: str, public_url: str | None
) -> dict[str, Any]:
    """Return the complete OpenAPI document, including the ingest routes.

    `mounted` contains the routes as mounted in the application. `routes` contains the same routes as a flat list.
    """
    document = get_openapi(
        title="Uplift Webhooks", version=version, description=_DESCRIPTION, license_info=_LICENSE, routes=mounted
    )
    if public_url is not None:
        document["servers"] = [{"url": public_url, "description": "This server."}]
    document["security"] = [{"key": []}]
    document["tags"] = [{"name": name, "description": text} for name, text in _TAGS.items()]
    schemas: dict[str, Any] = {}
    for name, schema in document["components"]["schemas"].items():
        if name not in {"HTTPValidationError", "ValidationError"}:
            schemas[public_name(name)] = _public(schema)
    schemas |= {"Problem": PROBLEM, **_INGEST_SCHEMAS, **event_schemas()}
    paths = document["paths"] = _public(document["paths"])
    for route in routes:
        if not route.include_in_schema:
            continue
        for method in route.methods or ():
            _complete(paths[route.path][method.lower()], route, schemas)
    paths.setdefault("/v1/events", {})["post"] = _ingest("Send an event", "EventNew", "EventAccepted")
    paths["/v1/events/batch"] = {"post": _ingest("Send a batch of events", "EventBatchNew", "EventBatchAccepted")}
    errors: dict[str, Any] = {}
    for path, operations in paths.items():
        for method, operation in operations.items():
            _finish(operation, f"{method.upper()} {path}", errors, is_public=path in PUBLIC)
    document["webhooks"] = webhooks()
    document["components"] = {
        "schemas": schemas,
        "responses": errors,
        "parameters": WEBHOOK_PARAMETERS,
        "headers": RESPONSE_HEADERS,
        "securitySchemes": {
            "key": {
                "type": "http",
                "scheme": "bearer",
                "description": "`op_…`: an operator key. `svc_…`: a service key. `sk_…`: an account's API key.",
            }
        },
    }
    return document


def public_name(name: str) -> str:
    """Return the public name of a model's schema, such as `Endpoint` or `EndpointList`."""
    listed = re.fullmatch(r"Listed_(\w+)_", name)
    return f"{public_name(listed[1])}List" if listed else _NAMES.get(name, name.removesuffix("View"))


def _public_ref(ref: str) -> str:
    return _REF.format(model=public_name(ref.rpartition("/")[2]))


def _public(value: Any) -> Any:
    """Return a part of the document with public schema names, and without pydantic's titles and defaults.

    Otherwise, generated clients would name types after the titles, and send the defaults for omitted fields.
    """
    if isinstance(value, list):
        return [_public(each) for each in value]
    if not isinstance(value, dict):
        return value
    found: dict[str, Any] = {}
    for keyword, each in value.items():
        if keyword == "$ref":
            found[keyword] = _public_ref(each)
        elif keyword == "discriminator":
            found[keyword] = {**each, "mapping": {name: _public_ref(ref) for name, ref in each["mapping"].items()}}
        elif keyword == "properties":
            found[keyword] = {name: _public(schema) for name, schema in each.items()}
        elif keyword != "default" and not (keyword == "title" and isinstance(each, str)):
            found[keyword] = each if keyword in _LITERAL else _public(each)
    return found


def _complete(operation: dict[str, Any], route: APIRoute, schemas: dict[str, Any]) -> None:
    """Add a route's request body, query parameters and request headers to its operation.

    Also add `Location` and `ETag` to the responses.
    """
    for reader in readers_of(route):
        if isinstance(reader, BodyReader):
            content = {_JSON: {"schema": _schema(reader.model, schemas)}}
            operation["requestBody"] = {"required": reader.required, "content": content}
        elif isinstance(reader, QueryReader):
            operation.setdefault("parameters", []).extend(_query(reader.model))
    if key_of.__name__ in route.endpoint.__code__.co_names:
        operation.setdefault("parameters", []).append(_KEY_HEADER)
    if expected_versions.__name__ in route.endpoint.__code__.co_names:
        operation.setdefault("parameters", []).append(_IF_MATCH)
    for status, response in operation["responses"].items():
        names = ["Location"] if status == "201" else []
        if route.response_model in _VERSIONED and status in {"200", "201"}:
            names.append("ETag")
        if names:
            response["headers"] = headers_of(names)


def _schema(model: type[BaseModel], schemas: dict[str, Any]) -> dict[str, str]:
    described = model.model_json_schema(ref_template=_REF)
    schemas.update({public_name(name): _public(each) for name, each in described.pop("$defs", {}).items()})
    schemas[model.__name__] = _public(described)
    return {"$ref": _REF.format(model=model.__name__)}


def _query(model: type[BaseModel]) -> Iterator[dict[str, Any]]:
    for name, described in model.model_json_schema()["properties"].items():
        schema = _public(described)
        # Remove null, because a query cannot contain it. Clients omit the parameter instead.
        kinds = [each for each in schema.pop("anyOf", ()) if each != _NULL]
        if kinds:
            [kind] = kinds
            schema |= kind
        if described.get("default"):
            schema["default"] = described["default"]
        description = schema.pop("description", None)
        parameter = {"name": name, "in": "query", "required": False, "schema": schema}
        yield parameter if description is None else {**parameter, "description": description}


def _ingest(summary: str, body: str, answer: str) -> dict[str, Any]:
    return {
        "tags": ["Events"],
        "summary": summary,
        "description": "Requires an operator key, or a service key with the scope `events:write`. Accepts all events or"
        " none. Each event can have an `account`."
        if body == "EventBatchNew"
        else "Requires an operator key or the scope `events:write`. The event is stored durably before the response.",
        "requestBody": {"required": True, "content": {_JSON: {"schema": {"$ref": _REF.format(model=body)}}}},
        "responses": {
            "202": {
                "description": "Accepted and stored.",
                "content": {_JSON: {"schema": {"$ref": _REF.format(model=answer)}}},
            }
        },
        "parameters": [_INCLUDE, _KEY_HEADER],
    }


def _finish(operation: dict[str, Any], call: str, errors: dict[str, Any], *, is_public: bool) -> None:
    """Add the operation's ID, errors, response headers and security, and the header `Uplift-Account`."""
    if call not in OPERATIONS:
        raise LookupError(f"{call} has no entry in OPERATIONS of api/openapi_operations.py. Add its ID and its errors.")
    known = OPERATIONS[call]
    operation["operationId"] = known.id
    if is_public:
        operation["security"] = []
    else:
        operation.setdefault("parameters", []).append(_ACCOUNT_HEADER)
    responses = operation["responses"]
    responses.pop("422", None)
    _separate(responses)
    headers = success_headers(known, operation)
    for response in responses.values():
        if response["description"] == _FASTAPI_DESCRIPTION:
            response["description"] = "Success."
        if headers:
            response["headers"] = {**response.get("headers", {}), **headers}
    responses |= error_responses(known, operation, errors)


def _separate(responses: Mapping[str, Any]) -> None:
    """In each union schema, remove the alternatives that describe other responses of the same operation.

    A schema stays unchanged unless exactly one alternative remains.
    """
    contents = [each["content"][_JSON] for each in responses.values() if _JSON in each.get("content", {})]
    schemas = [each["schema"] for each in contents]
    for content in contents:
        others = [each for each in content["schema"].get("anyOf", ()) if each not in schemas]
        if len(others) == 1:
            content["schema"] = others[0]
