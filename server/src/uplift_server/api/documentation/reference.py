"""The API reference, made from the OpenAPI document."""

import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

from uplift_server.api.documentation.markdown import Article, Heading, anchor, code, inline

_VERBS: Final = ("get", "post", "put", "patch", "delete")
_LIST: Final = re.compile(r"Listed_(\w+)_")
_JSON: Final = "application/json"
_WORDS: Final = {"date-time": "instant", "uuid": "UUID"}
_BESIDE: Final = (
    '<p>With examples: <a href="/docs/api">HTTP API</a>. What is refused: <a href="/docs/errors">error codes</a>. '
    'For programs: <a href="/openapi.json">/openapi.json</a>.</p>'
)

Schema = Mapping[str, Any]


def reference(document: Schema) -> Article:
    """Every call by its noun, with its query, body and answer; then every object that goes in or out."""
    info = document["info"]
    headings: list[Heading] = []
    parts = [
        f'<h1 id="reference">API reference</h1><p>{inline(info["description"])}</p>',
        _BESIDE,
        *_calls(document, headings),
        *_objects(document, headings),
    ]
    return Article("API reference", "\n".join(parts), tuple(headings))


def _calls(document: Schema, headings: list[Heading]) -> Iterator[str]:
    by_noun: dict[str, list[tuple[str, str, Schema]]] = {}
    for path, operations in document["paths"].items():
        for verb in _VERBS:
            if verb in operations:
                by_noun.setdefault(operations[verb]["tags"][0], []).append((verb.upper(), path, operations[verb]))
    taken: set[str] = set()
    for noun, calls in by_noun.items():
        yield _heading("h2", noun, anchor(noun, taken), headings)
        for verb, path, operation in calls:
            yield _heading("h3", operation["summary"], anchor(f"{verb} {path.replace('/', ' ')}", taken), headings)
            yield f'<p><span class="verb">{verb}</span> <code>{escape(path)}</code></p>'
            if operation.get("description"):
                yield f"<p>{inline(operation['description'])}</p>"
            yield from _query(operation)
            yield _exchange(operation)


def _query(operation: Schema) -> Iterator[str]:
    queries = [each for each in operation.get("parameters", ()) if each["in"] == "query"]
    if queries:
        rows = [(each["name"], each["schema"], each.get("description", ""), False) for each in queries]
        yield _table("query", rows)


def _exchange(operation: Schema) -> str:
    """What goes in and what comes back, in a line."""
    parts = []
    headers = [each["name"] for each in operation.get("parameters", ()) if each["in"] == "header"]
    body = operation.get("requestBody", {}).get("content", {}).get(_JSON, {}).get("schema")
    if body is not None:
        parts.append(f"Body: {_type(body)}")
    for status, answer in operation["responses"].items():
        schema = answer.get("content", {}).get(_JSON, {}).get("schema")
        if status.isdigit():
            parts.append(f"Answer: {status}" + (f", {_type(schema)}" if schema else ""))
    if headers:
        parts.append(f"Headers: {', '.join(f'<code>{escape(each)}</code>' for each in headers)}")
    return f"<p>{'<br>'.join(parts)}</p>"


def _objects(document: Schema, headings: list[Heading]) -> Iterator[str]:
    yield _heading("h2", "Objects", "objects", headings)
    for name, schema in document["components"]["schemas"].items():
        if _LIST.fullmatch(name):
            continue
        yield f'<h3 id="{name}">{_named(name)}</h3>'
        yield f"<p>{inline(schema.get('description', ''))}</p>"
        fields = schema.get("properties")
        if fields:
            # What comes back has all its fields; what goes in may leave some out, and may have no others.
            required = schema.get("required", ()) if schema.get("additionalProperties") is False else ()
            yield _table(
                "field", [(key, each, each.get("description", ""), key in required) for key, each in fields.items()]
            )
        elif "enum" in schema:
            yield f"<p>{_type(schema)}</p>"


def _table(kind: str, rows: list[tuple[str, Schema, str, bool]]) -> str:
    cells = "".join(
        f"<tr><td>{code(name)}</td><td>{_type(schema)}{', required' if required else ''}</td>"
        f"<td>{inline(description)}</td></tr>"
        for name, schema, description, required in rows
    )
    return (
        f'<div class="table"><table><thead><tr><th>{kind}</th><th>type</th><th>meaning</th></tr></thead>'
        f"<tbody>{cells}</tbody></table></div>"
    )


def _type(schema: Schema) -> str:
    """A type in a few words, as HTML."""
    if "$ref" in schema:
        return _named(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"<code>{escape(str(each))}</code>" for each in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return _WORDS.get(schema.get("format", ""), str(schema.get("type", "any")))


def _named(name: str) -> str:
    listed = _LIST.fullmatch(name)
    if listed is not None:
        return f"a list of {_named(listed[1])}"
    return f'<a href="#{name}"><code>{name}</code></a>'


def _heading(level: str, text: str, found: str, headings: list[Heading]) -> str:
    headings.append(Heading(level, text, found))
    return f'<{level} id="{found}"><a href="#{found}">{escape(text)}</a></{level}>'
