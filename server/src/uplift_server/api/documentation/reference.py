"""The API reference page, generated from the OpenAPI document, hand-written notes and tables from the code."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from html import escape
from importlib import resources
from typing import Any, Final

from uplift_server.api.documentation import reference_tables as tables
from uplift_server.api.documentation.documents import served
from uplift_server.api.documentation.markdown import Article, Heading, article
from uplift_server.api.documentation.reference_samples import (
    JSON,
    LANGUAGES,
    LIST,
    REF,
    Schema,
    model,
    reference_data,
    sample_request,
    sample_response,
    written,
)
from uplift_server.api.openapi_operations import OPERATIONS
from uplift_server.service.problem_documents import STATUS, TITLES

VERBS: Final = ("get", "post", "put", "patch", "delete")
NOUNS: Final = (
    ("Endpoints", r"/v1/endpoints(?!/{endpoint}/stats)"),
    ("Events", "/v1/(events|rejected-events)"),
    ("Deliveries", "/v1/(deliveries|attempts)"),
    ("Replays", "/v1/replays"),
    ("Statistics", "/v1/stats|/v1/endpoints/{endpoint}/stats"),
    ("Event types", "/v1/event-types"),
    ("Listen sessions", "/v1/listen-sessions"),
    ("Audit log", "/v1/audit-log"),
    ("Accounts", "/v1/account$|/v1/accounts(/{account})?$"),
    ("Keys", "/v1/accounts/{account}/keys"),
    ("Service keys", "/v1/keys"),
    ("Members", "/v1/accounts/{account}/(members|invitations)"),
    ("Erasures", "/v1/accounts/{account}/erasures"),
    ("Sign-in links", "/v1/accounts/{account}/portal-links|/v1/sign-in-links"),
    ("Server", ""),
)
"""The sections of API calls: titles and path patterns. A call belongs to the first section whose pattern matches."""
_BEFORE: Final = ("Authentication", "Conventions", "Errors")
_STREAM: Final = {"Listen sessions": "Listen stream"}
"""The titles of sections that contain only hand-written notes. The keys are the titles of the preceding sections."""
_JSON: Final = "application/json"
_SOURCE: Final = "docs/api.md"
"""The file to which links in the descriptions are relative."""
_GENERIC_HEADER: Final = "Uplift-Account"
"""A header that every call accepts. The API reference describes this header once."""
_GENERATED: Final[Mapping[str, Callable[[], str]]] = {
    "scopes": tables.scopes,
    "roles": tables.roles,
    "ids": tables.ids,
    "settings": tables.endpoint_settings,
    "actions": tables.audit_actions,
    "validation_failed": lambda: TITLES["validation_failed"],
}
"""Functions that return the text for each placeholder in the hand-written notes.

The keys are the names of placeholders.
"""
_PLACEHOLDER: Final = re.compile(r"{{ (\w+) }}")


def reference(document: Schema) -> Article:
    """Render the API reference page from the OpenAPI document."""
    page = _Page()
    notes = _notes()
    page.html('<h1 id="api-reference">API reference</h1>')
    page.markdown(document["info"]["description"])
    page.markdown(notes["Introduction"])
    for title in _BEFORE:
        page.section(title, notes)
    schemas = document["components"]["schemas"]
    for noun, calls in _by_noun(document).items():
        page.section(noun, notes)
        for verb, path, operation in calls:
            _call(page, verb, path, operation, schemas, notes.get(f"{verb} {path}", ""))
        if noun in _STREAM:
            page.section(_STREAM[noun], notes)
    _objects(page, document)
    return page.article()


def call_anchor(verb: str, path: str) -> str:
    """Return the HTML anchor of an API call, such as `post-v1-endpoints-endpoint-pause`."""
    return re.sub(r"[^a-z0-9]+", "-", f"{verb} {path}".lower()).strip("-")


class _Page:
    """Builds the API reference page: its HTML and its headings."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._headings: list[Heading] = []

    def html(self, text: str) -> None:
        self._parts.append(text)

    def markdown(self, text: str) -> None:
        """Add Markdown to the page, and its headings to the table of contents."""
        if text.strip():
            shown = article(_filled(text), partial(served, source=_SOURCE))
            self._parts.append(shown.html)
            self._headings += shown.headings

    def heading(self, level: str, text: str, anchor: str) -> None:
        self._headings.append(Heading(level, text, anchor))
        self._parts.append(f'<{level} id="{anchor}"><a href="#{anchor}">{escape(text)}</a></{level}>')

    def section(self, title: str, notes: Mapping[str, str]) -> None:
        """Add a section with its notes to the page."""
        self.markdown(f"## {title}\n\n{notes.get(title, '')}")

    def article(self) -> Article:
        return Article("API reference", "\n".join(self._parts), tuple(self._headings))


def _notes() -> dict[str, str]:
    """Return the hand-written notes: section titles and texts in Markdown."""
    text = resources.files(__package__).joinpath("reference_notes.md").read_text(encoding="utf-8")
    _, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    return {title: body for title, _, body in (each.partition("\n") for each in sections)}


def _filled(text: str) -> str:
    return _PLACEHOLDER.sub(lambda found: _GENERATED[found[1]](), text)


def _by_noun(document: Schema) -> dict[str, list[tuple[str, str, Schema]]]:
    """Return the HTTP method, path and operation of every API call, grouped by section title."""
    found: dict[str, list[tuple[str, str, Schema]]] = {noun: [] for noun, _ in NOUNS}
    for path, operations in document["paths"].items():
        noun = next(noun for noun, pattern in NOUNS if re.match(pattern, path))
        found[noun] += [(verb.upper(), path, operations[verb]) for verb in VERBS if verb in operations]
    return found


def _call(page: _Page, verb: str, path: str, operation: Schema, schemas: Schema, note: str) -> None:
    page.heading("h3", operation["summary"], call_anchor(verb, path))
    page.html(f'<p class="call"><span class="verb">{verb}</span> <code>{escape(path)}</code></p>')
    page.markdown(operation.get("description", ""))
    page.markdown(_parameters(operation))
    page.markdown(_body(operation, schemas))
    page.markdown(note)
    request = sample_request(verb, path, operation)
    samples = [
        f"<details{' open' if not index else ''}><summary>{title}</summary>{_block(write(request), language)}</details>"
        for index, (title, language, write) in enumerate(LANGUAGES)
    ]
    page.html(f'<div class="samples">{"".join(samples)}</div>')
    _responses(page, verb, path, operation, schemas)


def _parameters(operation: Schema) -> str:
    rows = []
    for each in operation.get("parameters", ()):
        if each["name"] == _GENERIC_HEADER:
            continue
        place = each["in"]
        description = each.get("description") or tables.PATH_PARAMETERS.get(each["name"], "")
        name = f"`{each['name']}`" + (f" ({place})" if place != "query" else "")
        rows.append((name, _type(each["schema"], required=place == "path"), description))
    return _table(("Parameter", "Type", "Description"), rows)


def _body(operation: Schema, schemas: Schema) -> str:
    schema = operation.get("requestBody", {}).get("content", {}).get(_JSON, {}).get("schema")
    if schema is None:
        return ""
    name = model(schema)
    return _table(("Body field", "Type", "Description"), _fields(name, schemas[name], are_requests=True))


def _responses(page: _Page, verb: str, path: str, operation: Schema, schemas: Schema) -> None:
    shown: list[Any] = []
    for status, response in operation["responses"].items():
        if not status.startswith("2"):
            continue
        [(media_type, content)] = response.get("content", {"": {}}).items()
        schema = content.get("schema")
        if media_type != _JSON or schema is None:
            page.markdown(f"**Response {status}**" + (f": `{media_type}`" if media_type else ": no body"))
            continue
        if schema in shown:
            page.markdown(f"**Response {status}**: {_type(schema)}, as above")
            continue
        shown.append(schema)
        page.markdown(f"**Response {status}**: {_type(schema)}")
        page.html(_block(written(sample_response(verb, path, schema, schemas), JSON), "json"))
    codes = [f"{STATUS[code]} [`{code}`](/docs/errors#{code})" for code in OPERATIONS[f"{verb} {path}"].codes]
    if codes:
        page.markdown(f"**Errors**: {', '.join(codes)}")


def _objects(page: _Page, document: Schema) -> None:
    """Add a section for each object in responses, with a table of its fields."""
    schemas = document["components"]["schemas"]
    page.section("Objects", {})
    for name in sorted(_in_responses(document), key=tables.title):
        schema = schemas[name]
        if "properties" not in schema:
            continue
        title = tables.title(name)
        page.html(f'<h3 id="{_object_anchor(name)}">{escape(title)}</h3>')
        page.markdown(schema.get("description", ""))
        page.markdown(_table(("Field", "Type", "Description"), _fields(name, schema)))


def _in_responses(document: Schema) -> set[str]:
    """Return the names of all schemas in responses, except list schemas."""
    found: set[str] = set()
    schemas = document["components"]["schemas"]
    waiting = [each["responses"] for item in document["paths"].values() for each in item.values()]
    while waiting:
        names = {each for each in _references(waiting.pop()) if each not in found}
        found |= names
        waiting += [schemas[each] for each in names]
    return {each for each in found if not each.endswith(LIST)}


def _references(value: Any) -> Iterator[str]:
    """Yield the name of each schema that `value`, a part of the OpenAPI document, refers to."""
    if isinstance(value, Mapping):
        if str(value.get("$ref", "")).startswith(REF):
            yield model(value)
        for each in value.values():
            yield from _references(each)
    elif isinstance(value, list):
        for each in value:
            yield from _references(each)


def _fields(
    model_name: str, schema: Schema, prefix: str = "", *, are_requests: bool = False
) -> Iterator[tuple[str, str, str]]:
    """Yield a table row for each field.

    If a field is an array of objects without a named schema, also yield a row for each field of these objects, such as
    `errors[].code`.
    """
    described = reference_data()["descriptions"]
    for name, each in schema.get("properties", {}).items():
        # Responses always contain all fields, so the reference marks required fields only in requests.
        required = are_requests and name in schema.get("required", ())
        known = described.get(f"{model_name}.{name}") or described.get(f"{prefix}{name}") or described.get(name)
        yield f"`{prefix}{name}`", _type(each, required=required), each.get("description") or known or ""
        items = each.get("items", {})
        if "properties" in items:
            yield from _fields("", items, f"{prefix}{name}[].", are_requests=are_requests)


def _type(schema: Schema, *, required: bool = False) -> str:
    """Return a field's type and limits, as Markdown."""
    words = [_kind(schema)]
    for each in (schema, *schema.get("anyOf", ())):
        if "minimum" in each and "maximum" in each:
            words.append(f"{each['minimum']:,} to {each['maximum']:,}")
        if "maxLength" in each:
            words.append(f"at most {each['maxLength']:,} characters")
        if "maxItems" in each:
            words.append(f"{each.get('minItems', 0):,} to {each['maxItems']:,} items")
    if required:
        words.append("**required**")
    elif schema.get("default"):
        words.append(f"default `{schema['default']}`")
    return ", ".join(words)


def _kind(schema: Schema) -> str:
    if "$ref" in schema:
        return _named(schema)
    if "anyOf" in schema:
        return tables.choice(kind for each in schema["anyOf"] for kind in _kinds(each))
    if "enum" in schema:
        return tables.choice(_kinds(schema))
    if schema.get("type") == "array":
        return f"array of {_kind(schema.get('items', {}))}"
    formats = {"date-time": "timestamp", "uuid": "UUID"}
    return formats.get(schema.get("format", ""), str(schema.get("type", "any JSON")))


def _kinds(schema: Schema) -> list[str]:
    """Return the values that an enumeration schema allows, or the type of any other schema, as Markdown."""
    values = schema.get("enum") or tables.ENUMS.get(model(schema))
    return [f"`{each}`" for each in values] if values else [_kind(schema)]


def _named(schema: Schema) -> str:
    name = model(schema)
    if name in tables.ENUMS:
        return tables.choice(_kinds(schema))
    link = f"[{tables.title(name)}](#{_object_anchor(name)})"
    return f"list of {link}" if schema["$ref"].endswith(LIST) else link


def _object_anchor(name: str) -> str:
    return f"object-{tables.title(name).lower().replace(' ', '-')}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    rows = list(rows)
    return tables.table(head, rows) if rows else ""


def _block(text: str, language: str) -> str:
    """Render a code block as on the other documentation pages."""
    return article(f"```{language}\n{text}\n```\n", lambda _: None).html
