"""The API reference shows every call, and its samples are valid."""

import base64
import html
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jsonschema_rs
import pytest
from tests.tools import tool

from uplift_server.api.documentation import reference as reference_page
from uplift_server.api.documentation.documents import REFERENCE
from uplift_server.api.documentation.reference_samples import (
    SampleRequest,
    curl,
    python,
    reference_data,
    sample_request,
    sample_response,
    typescript,
)
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.events.catalog import EVENT_TYPES
from uplift_server.core.lifecycle import Status
from uplift_webhooks.api import Client

from .test_members import join

BYTES_MAX = 1_000_000
SENTENCES_MAX = 3
URL = "https://webhooks.example.com"
KEY = "sk_test"
EVENT_CALLS = ("POST /v1/events", "POST /v1/events/batch")


@pytest.fixture(scope="module")
def document(server: Any) -> Any:
    """Return the OpenAPI document from the server."""
    return server.client(None).get("/openapi.json").json


@pytest.fixture(scope="module")
def page(server: Any) -> str:
    """Return the page from the server."""
    return str(server.client(None).get(REFERENCE).body.decode())


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield the method and the path of each operation, and the operation."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def requests(document: Any) -> dict[str, SampleRequest]:
    """Return the sample request of each call."""
    return {f"{method} {path}": sample_request(method, path, each) for method, path, each in operations(document)}


def test_the_page_has_every_call_parameter_and_field(document: Any, page: str) -> None:
    shown = page.replace("<wbr>", "")
    schemas = document["components"]["schemas"]
    for method, path, operation in operations(document):
        anchor = reference_page.call_anchor(method, path)
        section = shown.partition(f'<h3 id="{anchor}">')[2].partition("<h3 ")[0]
        assert f'<span class="verb">{method}</span> <code>{path}</code>' in section
        assert html.escape(operation["summary"]) in section
        for each in operation.get("parameters", ()):
            assert each["name"] == "Uplift-Account" or f"<code>{each['name']}</code>" in section, (path, each)
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
        for field in schemas[body["$ref"].rpartition("/")[2]].get("properties", ()) if body else ():
            assert f"<td><code>{field}</code></td>" in section, (path, field)
        assert section.count("<summary>") == 3, path
    for name in ("Endpoint", "Attempt", "Replay"):
        for field in schemas[name]["properties"]:
            assert f"<td><code>{field}</code></td>" in shown.partition('<h2 id="objects">')[2], (name, field)


def test_sample_values_belong_to_schemas(document: Any) -> None:
    data = reference_data()
    schemas = document["components"]["schemas"]
    fields = {f"{name}.{field}" for name, each in schemas.items() for field in each.get("properties", ())}
    assert not data["objects"].keys() - schemas.keys()
    assert not {name for name in data["descriptions"] if "." in name} - fields


def test_every_field_has_a_description(page: str) -> None:
    assert "<td></td>" not in page


def test_the_size_of_the_page_is_limited(page: str) -> None:
    assert len(page.encode()) < BYTES_MAX


def test_every_note_is_on_the_page(document: Any, page: str) -> None:
    calls = {f"{method} {path}" for method, path, _ in operations(document)}
    sections = {noun for noun, _ in reference_page.NOUNS}
    sections |= {"Introduction", "Authentication", "Conventions", "Errors", "Listen stream"}

    assert not reference_page._notes().keys() - calls - sections
    assert "{{" not in re.sub(r"<pre>.*?</pre>", "", page, flags=re.DOTALL)


def test_a_call_has_at_most_three_sentences(document: Any) -> None:
    """Tables, lists and the sentence about the required permission are not counted."""
    notes = reference_page._notes()
    long = {}
    for method, path, operation in operations(document):
        call = f"{method} {path}"
        text = f"{operation.get('description', '')}\n\n{notes.get(call, '')}"
        prose = [block for block in re.split(r"\n\s*\n", text) if not re.match(r"[|*]|\d\.|Field codes:", block)]
        plain = re.sub(r"`[^`]*`", "x", " ".join(prose))
        plain = re.sub(r"^(Scope|Public|For (operators|every key)|Operators only|Requires|Needs)\b[^.]*\.", "", plain)
        sentences = len(re.findall(r"[.!?](?= |$)", plain))
        if sentences > SENTENCES_MAX:
            long[call] = sentences
    assert not long


def test_sample_responses_match_their_schemas(document: Any) -> None:
    schemas = document["components"]["schemas"]
    closed = {
        name: {**each, "additionalProperties": each.get("additionalProperties", False)}
        for name, each in schemas.items()
        if "properties" in each
    }
    checked = 0
    for method, path, operation in operations(document):
        for response in operation["responses"].values():
            schema = response.get("content", {}).get("application/json", {}).get("schema")
            for each in (schema or {}).get("anyOf", [schema] if schema else []):
                whole = {**each, "components": {"schemas": schemas | closed}}
                sample = sample_response(method, path, each, schemas)
                jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(sample)
                assert "…" not in json.dumps(sample, ensure_ascii=False).replace("9Xb2…", ""), (path, sample)
                checked += 1
    assert checked > 50


def test_the_client_has_a_method_for_every_json_call(document: Any) -> None:
    missing = {call for call, each in requests(document).items() if each.method_name is None}
    assert not {call for call in missing if " /v1/" in call}


def test_shell_samples_make_their_requests(document: Any) -> None:
    for call, request in requests(document).items():
        text = curl(request).replace("$UPLIFT_API_URL", URL).replace("$UPLIFT_API_KEY", KEY)
        program, *words = shlex.split(text.replace("\\\n", " "))
        assert program == "curl"
        given: dict[str, list[str]] = {}
        while words:
            word = words.pop(0)
            given.setdefault(word if word.startswith("-") else "url", []).append(
                words.pop(0) if word.startswith("-") else word
            )
        headers = dict(each.split(": ", 1) for each in given.get("-H", []))
        method = given.get("-X", ["POST" if "-d" in given else "GET"])[0]
        body = json.loads(given["-d"][0]) if "-d" in given else None
        _check(call, request, method, given["url"][0], headers, body)


def test_python_samples_make_their_requests(document: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPLIFT_API_URL", URL)
    monkeypatch.setenv("UPLIFT_API_KEY", KEY)
    made: list[Any] = []

    def record_call(client: Any, *call: Any) -> tuple[bytes, Any]:
        made.append((client, *call))
        return b"", {"data": [], "next_cursor": None}

    monkeypatch.setattr(Client, "_answered", record_call)
    for call, request in requests(document).items():
        if request.method_name is None:
            compile(python(request), call, "exec")
            continue
        exec(python(request), {})
        client, method, path, query, body, headers = made.pop()
        assert (method, path) == (request.method, request.path), call
        assert {key: each for key, each in (query or {}).items() if each is not None} == dict(request.query), call
        key = request.headers.get("Idempotency-Key")
        in_body = {"idempotency_key": key} if call == "POST /v1/events" else {}
        assert (body or {}) == {**(request.body or {}), **in_body}, call
        assert client._headers.get("uplift-account") == request.headers.get("Uplift-Account")
        assert (headers or {}) == ({"idempotency-key": key} if key and not in_body else {}), call


def test_typescript_samples_make_their_requests(document: Any) -> None:
    """The samples have no type annotations, so they are also valid JavaScript."""
    samples = requests(document)
    functions = ",\n".join(
        f"{json.dumps(call)}: async () => {{ {typescript(request)} }}" for call, request in samples.items()
    )
    program = f"""
        const made = {{}};
        let current;
        globalThis.fetch = async (url, options = {{}}) => {{
          made[current] = {{url, ...options}};
          return {{ok: true, json: async () => ({{}}), text: async () => ""}};
        }};
        const calls = {{{functions}}};
        (async () => {{
          for (const [call, run] of Object.entries(calls)) {{ current = call; await run(); }}
          console.log(JSON.stringify(made));
        }})();
    """
    done = subprocess.run(
        [tool("node"), "-e", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"UPLIFT_API_URL": URL, "UPLIFT_API_KEY": KEY},
    )
    made = json.loads(done.stdout)
    assert made.keys() == samples.keys()
    for call, request in samples.items():
        sent = made[call]
        body = json.loads(sent["body"]) if "body" in sent else None
        _check(call, request, sent.get("method", "GET"), sent["url"], sent.get("headers", {}), body)


def _check(call: str, request: SampleRequest, method: str, url: str, headers: dict[str, str], body: Any) -> None:
    """Check that the method, URL, headers and body that a sample sends match its `request`."""
    assert method == request.method, call
    parts = urlsplit(url)
    assert (f"{parts.scheme}://{parts.netloc}", parts.path) == (URL, request.path), call
    assert dict(parse_qsl(parts.query)) == {key: str(each) for key, each in request.query.items()}, call
    expected = {**request.headers}
    if not request.is_public:
        expected["Authorization"] = f"Bearer {KEY}"
    if request.body is not None:
        expected["Content-Type"] = "application/json"
    assert headers == expected, call
    assert body == request.body, call


def test_the_server_accepts_every_sample_request(server: Any, document: Any) -> None:
    """The requests use IDs of existing objects. The test also allows 409, and 503 for test events."""
    account = server.account()
    operator = server.operator
    endpoint = operator.call("POST", "/v1/endpoints", {"url": "https://example.com/a"}, uplift_account=account).json[
        "id"
    ]
    [registration] = server.lease(endpoint)
    server.settle(registration, Outcome.DELIVERED, Status.DELIVERED)
    attempt = operator.get(f"/v1/attempts?endpoint={endpoint}").json["data"][0]["id"]
    event = server.event(account, {endpoint: Status.PENDING})
    names = {"account": account, "endpoint": endpoint, "event": event, "name": "pitch.tracked", "document": "errors"}
    names["attempt"] = attempt
    owner = server.owner(account, None)
    names["delivery"] = owner.get(f"/v1/events/{event}/deliveries").json["data"][0]["id"]
    names["replay"] = owner.post("/v1/replays", {"endpoint": endpoint}).json["id"]
    names["erasure"] = operator.post(f"/v1/accounts/{account}/erasures", {"object_id": "x"}).json["id"]
    names["rejected_event"] = server.reject(account)
    names["session"] = owner.post("/v1/listen-sessions").json["id"]
    names["key"] = operator.post(f"/v1/accounts/{account}/keys", {"name": "spare"}).json["id"]
    names["member"] = join(server, account, "ana@example.com")
    invitation = {"email": "bob@example.com", "role": "member"}
    names["invitation"] = operator.post(f"/v1/accounts/{account}/members", invitation).json["id"]
    service_key = operator.post("/v1/keys", {"name": "spare", "scopes": []}).json["id"]
    names["link"] = operator.post(f"/v1/accounts/{account}/portal-links").json["id"]
    account_client = server.client(server.operator_key, account)
    samples = requests(document)
    rank = ("PUT", "GET", "POST", "PATCH", "DELETE")
    # Delete the account last.
    order = sorted(
        samples, key=lambda call: (rank.index(call.split()[0]), call == "DELETE /v1/accounts/{account}", -len(call))
    )
    for call in order:
        method, path = call.split()
        if call in EVENT_CALLS:
            continue  # The server of this test has no ingest.
        request = samples[call]
        own = {f"{{{name}}}": value for name, value in names.items()}
        if path.startswith("/v1/keys"):
            own["{key}"] = service_key
        given = dict(zip(re.findall(r"{\w+}", path), request.path_values, strict=True))
        text = json.dumps([request.target, request.body])
        real = {value: own[name] for name, value in given.items()}
        real |= {_sample(name): value for name, value in names.items() if name in {"account", "endpoint"}}
        for sample, value in real.items():
            text = text.replace(sample, value)
        target, body = json.loads(text)
        headers = {name: each for name, each in request.headers.items() if name != "Uplift-Account"}
        response = account_client.call(method, target, body, **headers)
        assert 200 <= response.status < 300 or response.status in {409, 503}, (call, response.status, response.body)
        if response.status == 503:
            assert "test" in path, (call, response.body)


def test_sample_events_match_the_catalog(document: Any) -> None:
    samples = requests(document)
    single, batch = (samples[call].body or {} for call in EVENT_CALLS)
    schemas = {each.name: each.schema for each in EVENT_TYPES}
    for event in (single, *batch["events"]):
        jsonschema_rs.Draft202012Validator(dict(schemas[event["type"]])).validate(event["data"])
    components = {"schemas": document["components"]["schemas"]}
    for name, body in (("EventNew", single), ("EventBatchNew", batch)):
        whole = {"$ref": f"#/components/schemas/{name}", "components": components}
        jsonschema_rs.Draft202012Validator(whole).validate(body)


def _sample(name: str) -> str:
    return sample_request("GET", f"/{{{name}}}", {"responses": {}}).path_values[0]


def test_the_sample_handshake_key_is_valid(page: str) -> None:
    """RFC 6455, section 4.1: the key is 16 bytes in base64."""
    [key] = re.findall(r"Sec-WebSocket-Key: ([\w=+/]+)", html.unescape(re.sub(r"<[^>]+>", "", page)))

    assert len(base64.b64decode(key, validate=True)) == 16
