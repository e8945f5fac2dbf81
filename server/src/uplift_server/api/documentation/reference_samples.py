"""Sample requests and responses for the API reference, from `reference_data.json` and the schemas."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Final
from urllib.parse import urlencode

from uplift_server.api.openapi import public_name

Schema = Mapping[str, Any]

LIST: Final = "List"
"""The suffix in the names of list schemas."""
REF: Final = "#/components/schemas/"
"""The prefix of a reference to a schema."""
_LINE_CHARACTERS: Final = 72
_IDENTIFIER: Final = re.compile(r"[A-Za-z_]\w*")
_KEY: Final = "UPLIFT_API_KEY"
_URL: Final = "UPLIFT_API_URL"
_ACCOUNT: Final = "Uplift-Account"
_IDEMPOTENCY: Final = "Idempotency-Key"


@dataclass(frozen=True, slots=True)
class Notation:
    """The syntax of JSON values in a programming language."""

    true: str = "true"
    false: str = "false"
    null: str = "null"
    trailing_comma: str = ""
    bare_keys: bool = False
    indent: int = 2


JSON: Final = Notation()
_PYTHON: Final = Notation("True", "False", "None", ",", indent=4)
_TYPESCRIPT: Final = Notation(trailing_comma=",", bare_keys=True)


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """A sample API call."""

    method: str
    path: str
    """The path, with sample values in place of its parameters."""
    path_values: tuple[str, ...] = ()
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    is_public: bool = False
    method_name: str | None = None
    """The Python client's method, such as `endpoints.create`, or None if the client has no method for the call."""
    result: str | None = None
    """The variable name for the response, such as `listen_session`, or None if the response is not JSON."""

    @property
    def target(self) -> str:
        """The path, with the query string if there is a query."""
        return f"{self.path}?{urlencode(self.query)}" if self.query else self.path


@cache
def reference_data() -> dict[str, Any]:
    """Return sample values, and descriptions of the fields that the schemas do not describe.

    `reference_data.json` uses model names. The result uses the corresponding schema names in the OpenAPI document.
    """
    text = resources.files(__package__).joinpath("reference_data.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    for part in ("objects", "descriptions"):
        data[part] = {
            re.sub(r"^\w+", lambda found: public_name(found[0]), name): each for name, each in data[part].items()
        }
    return data


def sample_request(method: str, path: str, operation: Schema) -> SampleRequest:
    """Return the sample request for a call."""
    given = reference_data()["calls"].get(f"{method} {path}", {})
    names = re.findall(r"{(\w+)}", path)
    values = tuple(str(reference_data()["fields"].get(name, name)) for name in names)
    for name, value in zip(names, values, strict=True):
        path = path.replace(f"{{{name}}}", value)
    return SampleRequest(
        method,
        path,
        values,
        given.get("query", {}),
        given.get("headers", {}),
        given.get("body"),
        operation.get("security") == [],
        given.get("python"),
        _result(operation),
    )


def sample_response(method: str, path: str, schema: Schema, schemas: Schema) -> Any:
    """Return a sample response to a call.

    Values for this call in `reference_data.json` replace the general sample values.
    """
    call = reference_data()["calls"].get(f"{method} {path}", {})
    value = _value(schema, schemas, frozenset(call.get("shows", ())))
    found = value["data"][0] if isinstance(value.get("data"), list) else value
    for name, each in call.get("response", {}).items():
        if name in found:
            found[name] = {**found[name], **each} if isinstance(found[name], dict) and isinstance(each, dict) else each
    return value


def model(schema: Schema) -> str:
    """Return the name of the schema that a `$ref` refers to, without the suffix `List`.

    Return an empty string if the schema is not a reference.
    """
    return str(schema.get("$ref", "")).removeprefix(REF).removesuffix(LIST)


def written(value: Any, notation: Notation, indent: int = 0, taken: int = 0) -> str:
    """Format a JSON value in the notation of a programming language.

    `indent` is the indentation of the line, and `taken` is the number of characters before the value on this line.
    """
    if isinstance(value, bool):
        return notation.true if value else notation.false
    if value is None:
        return notation.null
    if not isinstance(value, Mapping | list):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        inner = [(f"{_key(name, notation)}: ", each) for name, each in value.items()]
    else:
        inner = [("", each) for each in value]
    opening, closing = "{}" if isinstance(value, Mapping) else "[]"
    flat = ", ".join(f"{name}{written(each, notation)}" for name, each in inner)
    if opening == "{" and notation.bare_keys and flat:
        flat = f" {flat} "
    if "\n" not in flat and max(indent, taken) + len(flat) + 2 <= _LINE_CHARACTERS:
        return f"{opening}{flat}{closing}"
    deeper = indent + notation.indent
    space = " " * deeper
    lines = [f"{space}{name}{written(each, notation, deeper, deeper + 1 + len(name))}" for name, each in inner]
    return "\n".join([opening, ",\n".join(lines) + notation.trailing_comma, " " * indent + closing])


def curl(request: SampleRequest) -> str:
    """Return the request as a shell command."""
    has_implied_method = request.method == "GET" or (request.method == "POST" and request.body is not None)
    verb = "" if has_implied_method else f"-X {request.method} "
    parts = [f'curl {verb}"${_URL}{request.target}"']
    if not request.is_public:
        parts.append(f'-H "Authorization: Bearer ${_KEY}"')
    parts += [f'-H "{name}: {value}"' for name, value in request.headers.items()]
    if request.body is not None:
        parts.append('-H "Content-Type: application/json"')
        parts.append(f"-d '{written(request.body, JSON)}'")
    return " \\\n  ".join(parts)


def python(request: SampleRequest) -> str:
    """Return the request as Python code with the library's client, or with urllib if the client lacks the call."""
    if request.method_name is None:
        return _urllib(request)
    account = request.headers.get(_ACCOUNT)
    arguments = [written(each, _PYTHON) for each in request.path_values]
    keywords = {**request.query, **(request.body or {})}
    if _IDEMPOTENCY in request.headers:
        keywords["idempotency_key"] = request.headers[_IDEMPOTENCY]
    call = f"client.{request.method_name}"
    assigned = f"{request.result} = {call}" if request.result else call
    arguments += [f"{name}={written(each, _PYTHON, 0, len(name) + 1)}" for name, each in keywords.items()]
    line = f"{assigned}({', '.join(arguments)})"
    if "\n" in line or len(line) > _LINE_CHARACTERS:
        line = "\n".join([f"{assigned}(", *(f"{_indented(each)}," for each in arguments), ")"])
    client = f'Client(account="{account}")' if account else "Client()"
    return f"from uplift_webhooks.api import Client\n\nclient = {client}\n{line}"


def typescript(request: SampleRequest) -> str:
    """Return the request as TypeScript code with `fetch`."""
    headers: dict[str, str] = {}
    if not request.is_public:
        headers["Authorization"] = f"`Bearer ${{process.env.{_KEY}}}`"
    headers |= {name: json.dumps(value) for name, value in request.headers.items()}
    if request.body is not None:
        headers["Content-Type"] = '"application/json"'
    options = [] if request.method == "GET" else [f'  method: "{request.method}",\n']
    if headers:
        shown = [f"{_key(name, _TYPESCRIPT)}: {value}" for name, value in headers.items()]
        options.append(f"  headers: {_braced(shown, 2)},\n")
    if request.body is not None:
        body = written(request.body, _TYPESCRIPT, 2, len("  body: JSON.stringify("))
        options.append(f"  body: JSON.stringify({body}),\n")
    url = f"`${{process.env.{_URL}}}{request.target}`"
    sent = "".join([f"fetch({url}, {{\n", *options, "})"]) if options else f"fetch({url})"
    lines = [
        f"const response = await {sent};",
        "if (!response.ok) throw new Error(await response.text());",
    ]
    if request.result:
        lines.append(f"const {_camel(request.result)} = await response.json();")
    elif request.method == "GET":
        lines.append("const text = await response.text();")
    return "\n".join(lines)


LANGUAGES: Final[tuple[tuple[str, str, Callable[[SampleRequest], str]], ...]] = (
    ("curl", "sh", curl),
    ("Python", "python", python),
    ("TypeScript", "typescript", typescript),
)
"""The languages in page order: each title, code block language, and function that returns the code."""


def _urllib(request: SampleRequest) -> str:
    url = f'os.environ["{_URL}"] + "{request.target}"'
    key = f'headers={{"Authorization": "Bearer " + os.environ["{_KEY}"]}}'
    arguments = f"{url}" if request.is_public else f"\n    {url},\n    {key},\n"
    return (
        "import os\nimport urllib.request\n\n"
        f"request = urllib.request.Request({arguments})\n"
        "with urllib.request.urlopen(request) as response:\n"
        "    print(response.read().decode())"
    )


def _value(schema: Schema, schemas: Schema, shown: frozenset[str] = frozenset(), name: str = "") -> Any:
    """Return a sample value that matches a schema. `name` is the name of the field."""
    fields = reference_data()["fields"]
    if "$ref" in schema:
        reference = schema["$ref"].removeprefix(REF)
        return _object(reference, schemas, shown, name)
    if name in fields:
        return fields[name]
    alternatives: Sequence[Schema] = schema.get("anyOf", ())
    if alternatives:
        return _value(alternatives[0], schemas, shown)
    if schema.get("type") == "array":
        return [_value(schema.get("items", {}), schemas, shown)]
    if "enum" in schema:
        return schema["enum"][0]
    empty: dict[str, Any] = {"string": "…", "integer": 0, "number": 0.0, "boolean": False, "object": {}}
    return empty.get(schema.get("type", ""))


def _object(reference: str, schemas: Schema, shown: frozenset[str], name: str) -> Any:
    schema = schemas[reference]
    if "properties" not in schema:
        return _value(schema, schemas, shown, name)
    own = reference_data()["objects"].get(reference, {})
    listed = reference.endswith(LIST)
    value: dict[str, Any] = {}
    for field_name, each in schema["properties"].items():
        if field_name not in schema.get("required", ()) and field_name not in shown:
            continue
        if field_name in own:
            value[field_name] = own[field_name]
        elif listed and field_name in {"next_cursor", "prev_cursor"}:
            value[field_name] = None
        else:
            value[field_name] = _value(each, schemas, frozenset(), field_name)
    return value


def _result(operation: Schema) -> str | None:
    """Return the variable name for the response to a call, or None if the response is not JSON."""
    for status, response in operation["responses"].items():
        schema = response.get("content", {}).get("application/json", {}).get("schema")
        if not status.isdigit() or schema is None:
            continue
        if schema["$ref"].endswith((LIST, "Explanations")):
            return "page"
        words = re.sub(r"(WithBody|Accepted)$", "", model(schema))
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", words).lower()
    return None


def _key(name: str, notation: Notation) -> str:
    return name if notation.bare_keys and _IDENTIFIER.fullmatch(name) else json.dumps(name)


def _braced(parts: Sequence[str], indent: int) -> str:
    flat = f"{{ {', '.join(parts)} }}"
    if len(flat) + indent + len("headers: ") <= _LINE_CHARACTERS:
        return flat
    space = " " * indent
    return "\n".join(["{", *(f"{space}  {each}," for each in parts), f"{space}}}"])


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(each.capitalize() for each in rest)
