"""The API reference as one page that loads nothing from anywhere, made from the OpenAPI document."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

from uplift_server.api.problems import STATUS, TITLES

PAGE_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;"
    "background:#fff}code,pre{font:14px ui-monospace,monospace}h2{margin-top:2.5rem}table{border-collapse:collapse;"
    "width:100%}td,th{text-align:left;vertical-align:top;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #d8dee4}"
    ".verb{font-weight:600}a{color:#0b5cad}@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}"
    "td,th{border-color:#30363d}a{color:#6cb2ff}}pre{overflow-x:auto}"
)
"""Of every page this room makes."""
_VERBS: Final = ("get", "post", "put", "patch", "delete")


def reference_page(document: Mapping[str, Any]) -> str:
    """The page, as HTML."""
    info = document["info"]
    return "".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<title>{escape(info['title'])}: API reference</title><style>{PAGE_STYLE}</style></head><body>",
            f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['description'])}</p>",
            '<p>For programs: <a href="/openapi.json">/openapi.json</a>.</p>',
            *_operations(document),
            *_codes(),
            "</body></html>",
        )
    )


def _operations(document: Mapping[str, Any]) -> Iterator[str]:
    by_tag: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for verb in _VERBS:
            if verb in operations:
                operation = operations[verb]
                by_tag.setdefault(operation["tags"][0], []).append(_row(verb, path, operation))
    for tag, rows in by_tag.items():
        yield f"<h2>{escape(tag)}</h2><table>{''.join(rows)}</table>"


def _row(verb: str, path: str, operation: Mapping[str, Any]) -> str:
    queries = [each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"]
    query = f"<br>Query: <code>{escape(', '.join(queries))}</code>" if queries else ""
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    name = body.get("$ref", "").rpartition("/")[2]
    fields = f"<br>Body: <code>{escape(name)}</code>" if name else ""
    return (
        f'<tr><td class="verb">{verb.upper()}</td><td><code>{escape(path)}</code></td>'
        f"<td>{escape(operation['summary'])}. {escape(operation.get('description', ''))}{query}{fields}</td></tr>"
    )


def _codes() -> Iterator[str]:
    yield "<h2>Errors</h2><p>Every refusal is <code>application/problem+json</code> with one of these codes.</p><table>"
    for code, status in STATUS.items():
        yield f'<tr id="{code}"><td>{status}</td><td><code>{code}</code></td><td>{escape(TITLES[code])}</td></tr>'
    yield "</table>"
