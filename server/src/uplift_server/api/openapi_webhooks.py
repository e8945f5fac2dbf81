"""The webhooks in the OpenAPI document: the requests that an endpoint receives, with a schema for each event type."""

from typing import Any, Final

from uplift_server.core.events.catalog import EVENT_TYPES, EventType

_EXAMPLE_ID: Final = "0197f0c2-5b1e-7c3a-9d5e-2f6a8b0c4d1e"
_EXAMPLE_MS: Final = 1_752_090_911_411
_NOT_IN_DATA: Final = frozenset({"$schema", "title"})
"""Keywords of an event type's schema that the envelope schema omits when it embeds this schema as `data`."""
_HEADERS: Final = {
    "webhook-id": "Event ID. It is the same in every attempt: use it to ignore duplicates.",
    "webhook-timestamp": "Time of the attempt, in Unix seconds.",
    "webhook-signature": "Signatures for the request (Standard Webhooks), separated by spaces.",
    "x-uplift-signature-256": "`sha256=` and the HMAC-SHA256 of the body, in hexadecimal.",
    "x-uplift-event": "Event type.",
    "x-uplift-delivery": "Delivery ID.",
    "x-uplift-attempt": "Number of the attempt: 1, 2, 3 …",
}
WEBHOOK_PARAMETERS: Final = {
    name: {"name": name, "in": "header", "required": True, "description": text, "schema": {"type": "string"}}
    for name, text in _HEADERS.items()
}
"""The request headers of every attempt, as OpenAPI parameters. The keys are header names."""
_RESPONSES: Final = {
    "2XX": {"description": "The event is delivered."},
    "410": {
        "description": "The attempt failed. With `UPLIFT_GONE_DISABLES_ENDPOINT`, the server disables the endpoint."
        " Otherwise, the server retries the delivery."
    },
    "default": {"description": "The attempt failed. The server retries the delivery."},
}


def webhooks() -> dict[str, Any]:
    """Return the webhook for each built-in event type."""
    return {each.name: {"post": _webhook(each)} for each in EVENT_TYPES}


def event_schemas() -> dict[str, Any]:
    """Return the envelope schema for each built-in event type."""
    return {_schema_name(each): _envelope(each) for each in EVENT_TYPES}


def _schema_name(event_type: EventType) -> str:
    """Return the name of an event type's schema, such as `AthleteCreatedEvent`."""
    words = event_type.name.replace("_", ".").split(".")
    return "".join(word.capitalize() for word in words) + "Event"


def _webhook(event_type: EventType) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{_schema_name(event_type)}"}
    return {
        "operationId": f"webhooks_{event_type.name.replace('.', '_')}",
        "tags": ["Webhooks"],
        "summary": event_type.name,
        "description": event_type.description,
        "security": [],
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in WEBHOOK_PARAMETERS],
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": _RESPONSES,
    }


def _envelope(event_type: EventType) -> dict[str, Any]:
    data = {name: each for name, each in event_type.schema.items() if name not in _NOT_IN_DATA}
    properties: dict[str, Any] = {
        "id": {"type": "string", "format": "uuid", "description": "Event ID."},
        "object": {"type": "string", "const": "event", "description": "Kind of the object."},
        "type": {"type": "string", "const": event_type.name, "description": "Event type."},
        "api_version": {"type": "string", "description": "Version of `data`."},
        "created": {"type": "integer", "description": "When the server accepted the event, in Unix milliseconds."},
        "test": {"type": "boolean", "description": "`true` for a test event, otherwise absent."},
        "data": {**data, "description": "Content of the event."},
    }
    example = {
        "id": _EXAMPLE_ID,
        "object": "event",
        "type": event_type.name,
        "api_version": event_type.api_version,
        "created": _EXAMPLE_MS,
        "data": event_type.example,
    }
    return {
        "type": "object",
        "description": event_type.description,
        "required": [name for name in properties if name != "test"],
        "properties": properties,
        "examples": [example],
    }
