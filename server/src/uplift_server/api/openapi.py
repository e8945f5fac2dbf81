"""The OpenAPI document: FastAPI's description of the routes, plus bodies, queries, errors and the ingest routes."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.routing import BaseRoute

from uplift_server.api.problems import MEDIA_TYPE, STATUS
from uplift_server.api.reading import BodyReader, QueryReader
from uplift_server.api.routes.system import PUBLIC
from uplift_server.core.limits import BATCH_EVENTS_MAX, EVENT_DATA_BYTES_MAX

_DESCRIPTION: Final = (
    "Manage endpoints, inspect deliveries, and send events. All bodies are JSON. "
    "Authenticate with `Authorization: Bearer <key>`."
)
_FASTAPI_DESCRIPTION: Final = "Successful Response"
_REF: Final = "#/components/schemas/{model}"
_JSON: Final = "application/json"
_PROBLEM: Final = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "description": "Path of the documentation for this code."},
        "title": {"type": "string", "description": "Short description of the code."},
        "status": {"type": "integer", "description": "HTTP status code."},
        "detail": {"type": "string", "description": "The cause, and how to fix it."},
        "code": {"type": "string", "enum": list(STATUS), "description": "Stable error code."},
        "errors": {
            "type": "array",
            "description": "All problems of the request.",
            "items": {
                "type": "object",
                "required": ["field", "code", "message"],
                "properties": {
                    "field": {"type": "string", "description": "Path of the field, such as `headers.X-Team`."},
                    "code": {"type": "string", "description": "Stable field code."},
                    "message": {"type": "string", "description": "The problem, and how to fix it."},
                },
            },
        },
    },
}
_ACCOUNT_HEADER: Final = {
    "name": "Uplift-Account",
    "in": "header",
    "required": False,
    "description": "ID of the account to use. Only for operator keys.",
    "schema": {"type": "string"},
}
_KEY_HEADER: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A repeated request with the same key and body returns the same object.",
    "schema": {"type": "string"},
}
_REPEATABLE: Final = frozenset(
    {
        "/v1/accounts",
        "/v1/accounts/{account}/keys",
        "/v1/accounts/{account}/members",
        "/v1/accounts/{account}/portal-links",
        "/v1/endpoints",
        "/v1/endpoints/{endpoint}/secret/rotate",
        "/v1/endpoints/{endpoint}/test",
        "/v1/listen-sessions",
        "/v1/replays",
        "/v1/deliveries/resend",
        "/v1/sign-in-links",
    }
)
"""Paths whose POST requests accept `Idempotency-Key`, except the event paths."""
_TIMESTAMP: Final = {"type": "string", "format": "date-time"}
_EVENT_FIELDS: Final = {
    "type": {"type": "string", "description": "Event type from the catalog."},
    "data": {
        "type": "object",
        "description": f"Content of the event, sent unchanged. At most {EVENT_DATA_BYTES_MAX} bytes.",
    },
    "id": {"type": "string", "format": "uuid", "description": "Event ID. Default: a generated UUID."},
    "idempotency_key": {"type": "string", "description": "Key that makes the request safe to repeat."},
    "expires_at": {**_TIMESTAMP, "description": "The server does not start attempts at or after this time."},
}
_ACCEPTED: Final = {
    "type": "object",
    "required": ["id", "type", "created_at", "duplicate"],
    "properties": {
        "id": {"type": "string", "format": "uuid", "description": "Event ID."},
        "type": {"type": "string", "description": "Event type."},
        "created_at": {**_TIMESTAMP, "description": "When the server accepted the event."},
        "duplicate": {"type": "boolean", "description": "Whether an earlier request created the event."},
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
                    "properties": {"account": {"type": "string", "description": "Account ID."}, **_EVENT_FIELDS},
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


def openapi_document(mounted: Sequence[BaseRoute], routes: Iterable[APIRoute], version: str) -> dict[str, Any]:
    """Return the whole document, including the ingest routes.

    `mounted` contains the routes as mounted in the application. `routes` contains the same routes as a flat list.
    """
    document = get_openapi(title="Uplift Webhooks", version=version, description=_DESCRIPTION, routes=mounted)
    schemas: dict[str, Any] = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = _PROBLEM
    schemas.update(_INGEST_SCHEMAS)
    paths = document["paths"]
    for route in routes:
        if not route.include_in_schema:
            continue
        for method in route.methods or ():
            _complete(paths[route.path][method.lower()], route, schemas)
    paths.setdefault("/v1/events", {})["post"] = _ingest("Send an event", "EventNew", "EventAccepted")
    paths["/v1/events/batch"] = {"post": _ingest("Send a batch of events", "EventBatchNew", "EventBatchAccepted")}
    for path, operations in paths.items():
        for operation in operations.values():
            _add_errors(operation, public=path in PUBLIC)
    document["components"]["securitySchemes"] = {
        "key": {
            "type": "http",
            "scheme": "bearer",
            "description": "`op_…`: an operator key. `sk_…`: an API key of an account.",
        }
    }
    document["security"] = [{"key": []}]
    return document


def _complete(operation: dict[str, Any], route: APIRoute, schemas: dict[str, Any]) -> None:
    """Add the body and the query parameters from the models of the readers."""
    for reader in (dependency.call for dependency in route.dependant.dependencies):
        if isinstance(reader, BodyReader):
            content = {_JSON: {"schema": _schema(reader.model, schemas)}}
            operation["requestBody"] = {"required": reader.required, "content": content}
            if route.methods == {"POST"} and route.path in _REPEATABLE:
                operation.setdefault("parameters", []).append(_KEY_HEADER)
        elif isinstance(reader, QueryReader):
            operation.setdefault("parameters", []).extend(_query(reader.model))


def _schema(model: type[BaseModel], schemas: dict[str, Any]) -> dict[str, str]:
    described = model.model_json_schema(ref_template=_REF)
    schemas.update(described.pop("$defs", {}))
    schemas[model.__name__] = described
    return {"$ref": _REF.format(model=model.__name__)}


def _query(model: type[BaseModel]) -> Iterator[dict[str, Any]]:
    for name, schema in model.model_json_schema()["properties"].items():
        description = schema.pop("description", None)
        parameter = {"name": name, "in": "query", "required": False, "schema": schema}
        yield parameter if description is None else {**parameter, "description": description}


def _ingest(summary: str, body: str, answer: str) -> dict[str, Any]:
    return {
        "tags": ["Events"],
        "summary": summary,
        "operationId": "send_many_events" if body == "EventBatchNew" else "send_an_event",
        "description": "Requires an operator key. Accepts all events or none. Each event can have an `account`."
        if body == "EventBatchNew"
        else "Requires an operator key or the scope `events:write`. The event is stored durably before the response.",
        "requestBody": {"required": True, "content": {_JSON: {"schema": {"$ref": _REF.format(model=body)}}}},
        "responses": {
            "202": {
                "description": "Accepted and stored.",
                "content": {_JSON: {"schema": {"$ref": _REF.format(model=answer)}}},
            }
        },
        "parameters": [_KEY_HEADER],
    }


def _add_errors(operation: dict[str, Any], *, public: bool) -> None:
    """Add the error response, the security and the header `Uplift-Account`."""
    operation["responses"].pop("422", None)
    for response in operation["responses"].values():
        if response["description"] == _FASTAPI_DESCRIPTION:
            response["description"] = "Success."
    operation["responses"]["default"] = {
        "description": "An error. `code` identifies the cause.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}},
    }
    if public:
        operation["security"] = []
    else:
        operation.setdefault("parameters", []).append(_ACCOUNT_HEADER)
