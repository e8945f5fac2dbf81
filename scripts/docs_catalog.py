"""The generated part of docs/catalog.md: every built-in event type with its fields and an example."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from uplift_server.core.events.catalog import EVENT_TYPES, EventType

Schema = Mapping[str, Any]

SIGNATURE_CHARACTERS = 12
"""Number of characters to which signatures in example links are shortened, so that lines stay short."""


def catalog_markdown() -> str:
    """Return the Markdown of all built-in event types."""
    return "\n\n".join(_section(each) for each in EVENT_TYPES)


def _section(event_type: EventType) -> str:
    schema: Schema = event_type.schema
    rows = [
        f"| `{path}` | {_type(field)}{', required' if required else ''} | {field.get('description', '')} |"
        for path, field, required in _fields(schema["properties"]["object"])
    ]
    example = json.dumps(event_type.example, indent=2, ensure_ascii=False)
    example = re.sub(rf"(Signature=.{{{SIGNATURE_CHARACTERS}}})[^\"]*", r"\1", example)
    return "\n".join(
        [
            f"## `{event_type.name}`",
            "",
            event_type.description,
            "",
            "| field of `data.object` | type | description |",
            "|---|---|---|",
            *rows,
            "",
            "```json",
            example,
            "```",
        ]
    )


def _fields(schema: Schema, prefix: str = "") -> Iterator[tuple[str, Schema, bool]]:
    """Yield the path of each field, its schema, and whether it is required. Objects come before their fields."""
    required = schema.get("required", ())
    for name, field in schema["properties"].items():
        yield f"{prefix}{name}", field, name in required
        if "properties" in field:
            yield from _fields(field, f"{prefix}{name}.")


def _type(field: Schema) -> str:
    """Return the type of a field in words."""
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return " or ".join("null" if each is None else f"`{each}`" for each in field["enum"])
    kind = field["type"]
    if kind == "array":
        return f"list of {_type(field['items'])}s"
    return kind if isinstance(kind, str) else " or ".join(kind)
