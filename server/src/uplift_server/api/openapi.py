"""The OpenAPI document: what the framework knows of the routes, completed by what it does not."""

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
    "Register endpoints, read what was delivered and what was not, and send events. "
    "JSON; send your key as `Authorization: Bearer <key>`."
)
_REF: Final = "#/components/schemas/{model}"
_JSON: Final = "application/json"
_PROBLEM: Final = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "description": "Where people read about the code."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What happened and what to do."},
        "code": {"type": "string", "enum": list(STATUS)},
        "errors": {
            "type": "array",
            "description": "Everything that is wrong with the request.",
            "items": {
                "type": "object",
                "required": ["field", "code", "message"],
                "properties": {
                    "field": {"type": "string"},
                    "code": {"type": "string"},
                    "message": {"type": "string"},
                },
            },
        },
    },
}
_ACCOUNT_HEADER: Final = {
    "name": "Uplift-Account",
    "in": "header",
    "required": False,
    "description": "With an operator's key: the account to act for.",
    "schema": {"type": "string"},
}
_KEY_HEADER: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A repeat with the same key and body answers the same object.",
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
        "/v1/sign-in-links",
    }
)
"""Paths whose POST takes that header, besides those of events."""
_INSTANT: Final = {"type": "string", "format": "date-time"}
_EVENT_FIELDS: Final = {
    "type": {"type": "string", "description": "A name of the catalog."},
    "data": {"type": "object", "description": f"At most {EVENT_DATA_BYTES_MAX} bytes; sent as it is."},
    "id": {"type": "string", "format": "uuid", "description": "Your own id; left out: we make one."},
    "idempotency_key": {"type": "string"},
    "expires_at": {**_INSTANT, "description": "Nothing is sent after it."},
}
_ACCEPTED: Final = {
    "type": "object",
    "required": ["id", "type", "created_at", "duplicate"],
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "type": {"type": "string"},
        "created_at": _INSTANT,
        "duplicate": {"type": "boolean", "description": "Whether it had been accepted before."},
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
                    "properties": {"account": {"type": "string"}, **_EVENT_FIELDS},
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
    """The whole document, the routes for events that another callable serves included.

    `mounted` is what the framework serves, `routes` the same routes one by one.
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
    paths["/v1/events/batch"] = {"post": _ingest("Send many events", "EventBatchNew", "EventBatchAccepted")}
    for path, operations in paths.items():
        for operation in operations.values():
            _refuse(operation, public=path in PUBLIC)
    document["components"]["securitySchemes"] = {
        "key": {
            "type": "http",
            "scheme": "bearer",
            "description": "`op_…`: an operator's key; `sk_…`: a key of an account.",
        }
    }
    document["security"] = [{"key": []}]
    return document


def _complete(operation: dict[str, Any], route: APIRoute, schemas: dict[str, Any]) -> None:
    """Add what the readers read: the body by its model, the query by its."""
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
        "operationId": summary.lower().replace(" ", "_"),
        "description": "For operators, all or nothing; each event may name its `account`."
        if body == "EventBatchNew"
        else "For operators, or scope `events:write`. What is answered 202 is durable.",
        "requestBody": {"required": True, "content": {_JSON: {"schema": {"$ref": _REF.format(model=body)}}}},
        "responses": {
            "202": {
                "description": "Accepted: stored with its deliveries.",
                "content": {_JSON: {"schema": {"$ref": _REF.format(model=answer)}}},
            }
        },
        "parameters": [_KEY_HEADER],
    }


def _refuse(operation: dict[str, Any], *, public: bool) -> None:
    """Add the refusals, who may call, and for which account."""
    operation["responses"].pop("422", None)
    operation["responses"]["default"] = {
        "description": "Refused; `code` says why.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}},
    }
    if public:
        operation["security"] = []
    else:
        operation.setdefault("parameters", []).append(_ACCOUNT_HEADER)
