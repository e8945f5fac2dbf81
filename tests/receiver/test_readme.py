"""The README of the library is complete, and its examples work."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

import pytest

from uplift_webhooks import Reason, Webhook, WebhookVerificationError
from uplift_webhooks.api import Client
from uplift_webhooks.api.calls import Noun
from uplift_webhooks.events import KINDS, read_event
from uplift_webhooks.explanation import Cause
from uplift_webhooks.frameworks.rejections import unverified
from uplift_webhooks.resources import json_names
from uplift_webhooks.testing import Sender, make_event, sign

from .receivers import as_django
from .scripted_api import ScriptedApi, json_response, problem_response

README = (Path(__file__).parents[2] / "receiver/README.md").read_text(encoding="utf-8")
SECRET = "0123456789abcdef"
EVENT = {
    "id": "0197f0c2-0000-7000-8000-000000000001",
    "type": "movement.analytics.created",
    "data": {"object": {"data": {"url": "https://cdn.example/export.csv"}}},
}


def _run(containing: str) -> dict[str, Any]:
    """Run the snippet that contains a text; return its definitions."""
    [snippet] = [each for each in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if containing in each]
    namespace: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(snippet, "README.md", "exec"), namespace)
    return namespace


def test_the_flask_snippet_verifies_and_rejects(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UPLIFT_WEBHOOK_SECRET", SECRET)
    client = _run("from flask import Flask, request")["app"].test_client()
    body = json.dumps(EVENT).encode()

    assert client.post("/webhook", data=body, headers=sign(body, SECRET)).status_code == 204
    assert "https://cdn.example/export.csv" in capsys.readouterr().out
    assert client.post("/webhook", data=body + b" ", headers=sign(body, SECRET)).status_code == 400
    assert client.post("/webhook", data=body).status_code == 400


FRAMEWORKS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "def receive_with_fastapi": lambda defined: defined["app"],
    "def receive_with_flask": lambda defined: defined["app"],
    "def receive_with_django": lambda defined: as_django(defined["urlpatterns"]),
    "plain_asgi": lambda defined: defined["plain_asgi"],
}


@pytest.mark.parametrize("snippet", FRAMEWORKS)
def test_the_framework_snippets_accept_and_reject(
    snippet: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UPLIFT_WEBHOOK_SECRET", SECRET)
    sender = Sender(FRAMEWORKS[snippet](_run(snippet)), SECRET)

    assert sender.post(make_event(id="e_1")).status == 204
    assert sender.post_with_bad_signature().status == 401
    assert capsys.readouterr().out == "movement.analytics.created e_1\n"


def test_the_testing_snippet_passes(tmp_path: Path) -> None:
    [snippet] = [each for each in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "uplift_receiver" in each]
    (tmp_path / "test_webhooks.py").write_text(snippet)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    (tmp_path / "myproject.py").write_text(
        "from uplift_webhooks import Webhook\nfrom uplift_webhooks.frameworks.wsgi import WebhookApplication\n"
        "app = WebhookApplication(Webhook(), print)\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "UPLIFT_WEBHOOK_SECRET": SECRET},
    )
    assert "2 passed" in run.stdout, run.stdout


def test_every_reason_has_its_status_in_the_table() -> None:
    rows = {
        status: reasons
        for reasons, status in re.findall(r"^\| [^|]*\((`\w+_[^|]*)\) \| (40\d) \|$", README, re.MULTILINE)
    }
    for status, reasons in rows.items():
        for reason in re.findall(r"`(\w+)`", reasons):
            error = WebhookVerificationError(cast("Reason", reason), "", "")
            assert unverified(error).status == int(status)
    at_start_or_impossible = {"secret_missing", "secret_invalid", "body_not_bytes", "headers_unreadable"}
    assert set(re.findall(r"`(\w+)`", "".join(rows.values()))) == {*get_args(Reason)} - at_start_or_impossible


def test_the_typed_events_snippet_describes_each_event() -> None:
    describe = _run("def describe")["describe"]

    def described(type_name: str, resource: dict[str, Any]) -> str:
        return str(describe(read_event({"id": "e", "type": type_name, "data": {"object": resource}}, None)))

    link = {"url": "https://cdn.example/x.csv"}
    session = {"id": "s_1", "movement": "pitching", "data": link}
    assert described("movement.analytics.created", session) == "session s_1, pitching: https://cdn.example/x.csv"
    assert described("movement.analytics.created", {}) == "session None, None: no data"
    assert described("capture.processing.failed", {"id": "s_1", "error": "blurred"}) == "session s_1 failed: blurred"
    assert described("athlete.updated", {"id": "a", "changed": ["level", "email"]}) == "athlete a: level, email changed"
    assert described("pitch.tracked", {"n": 1}) == "pitch.tracked: {'object': {'n': 1}}"


def test_every_class_and_its_type_is_documented() -> None:
    for type_name, kind in KINDS.items():
        [row] = [line for line in README.splitlines() if line.startswith("|") and f"`{type_name}`" in line]
        resource = get_type_hints(kind.object.fget)["return"]  # type: ignore[attr-defined]
        assert f"`{kind.__name__}`" in row
        assert f"`{resource.__name__}`" in row
        if "…" not in row:
            assert not [name for name in json_names(resource) if f"`{name}`" not in row]


def test_the_deduplication_snippets_handle_events_once_in_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    once, newest = _run("def handle_once"), _run("def keep_newest")
    for created, event_id in ((2, "b"), (1, "a"), (2, "b"), (3, "c")):
        envelope = {**EVENT, "id": event_id, "created": created, "data": {"object": {"id": "s_1"}}}
        once["handle_once"](read_event(envelope, None))
        newest["keep_newest"](read_event(envelope, None))
    once["seen"].close()
    newest["seen"].close()

    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("new")] == ["new: b", "new: a", "new: c"]
    assert [line for line in lines if line.startswith("store")] == ["store s_1 as of 2", "store s_1 as of 3"]


def test_the_api_snippet_resends_failed_deliveries(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("uplift_webhooks.api.Client", lambda url, key: Client(api.url, "sk_1"))
    api.script = [
        json_response({"id": "ep_1", "secret": "whsec_x"}),
        json_response({"data": [{"id": "dlv_2"}, {"id": "dlv_1"}], "next_cursor": None}),
        json_response({"data": [{"outcome": "timeout", "hint": "Answer first."}], "next_cursor": None}),
        problem_response(409, "conflict", "An attempt is in flight."),
        json_response({"data": [], "next_cursor": None}),
        problem_response(409, "conflict", "The event has expired."),
    ]

    _run("client.endpoints.create")["client"].close()

    assert [request.target for request in api.requests][1:] == [
        "/v1/deliveries?limit=200&status=failed&endpoint=ep_1",
        "/v1/deliveries/dlv_2/attempts",
        "/v1/deliveries/dlv_2/resend",
        "/v1/deliveries/dlv_1/attempts",
        "/v1/deliveries/dlv_1/resend",
    ]
    assert capsys.readouterr().out.splitlines() == [
        "ep_1 whsec_x",
        "timeout Answer first.",
        "409 conflict An attempt is in flight. None",
        "409 conflict The event has expired. None",
    ]


def test_the_reconciliation_snippet_continues_where_it_stopped(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UPLIFT_API_URL", api.url)
    body = {**EVENT, "data": {"object": {"id": "s_1"}}}
    page = {"data": [{"id": EVENT["id"], "type": EVENT["type"]}], "next_cursor": "one", "has_more": False}
    api.script = [
        json_response(page),
        json_response({"body": body}),
        json_response({"data": [], "next_cursor": "one", "has_more": False}),
    ]

    _run("client.reconcile")
    _run("client.reconcile")

    assert capsys.readouterr().out == "s_1\n"
    assert "cursor" not in api.requests[0].target
    assert api.requests[-1].target.endswith("cursor=one")


def test_every_client_method_is_documented() -> None:
    client = Client("https://webhooks.example")
    nouns = [name for name, value in vars(client).items() if not name.startswith("_") and isinstance(value, Noun)]
    assert len(nouns) == 17
    for noun in nouns:
        [row] = [line for line in README.splitlines() if line.startswith(f"| `client.{noun}` |")]
        calls = {name for name in dir(getattr(client, noun)) if not name.startswith("_")}
        assert set(re.findall(r"`(\w+)`", row.rpartition(" | ")[2])) == calls


def test_the_explanation_snippet_returns_the_cause() -> None:
    why = _run("def why")["why"]
    body = make_event()

    assert why(Webhook(SECRET), body, sign(body, SECRET)) == "The request is verified."
    assert why(Webhook(SECRET), json.dumps(json.loads(body)).encode(), sign(body, SECRET)).startswith(
        "body_reserialised: The secret is correct, but the body was parsed and serialized again as JSON. Pass the raw"
    )


def test_every_cause_is_documented() -> None:
    _, causes = map(get_args, get_args(Cause))
    section = README.partition("### Find the cause")[2]
    assert not [cause for cause in causes if not re.search(rf"^\|[^|]*`{cause}`", section, re.MULTILINE)]


def test_the_source_address_snippet_calls_the_api(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    clients: list[Client] = []

    def new_client(url: str) -> Client:
        clients.append(Client(api.url))
        return clients[0]

    monkeypatch.setattr("uplift_webhooks.api.Client", new_client)
    api.script = [json_response({"current": ["54.245.28.22"], "upcoming": []})]
    is_uplift = _run("def is_uplift")["is_uplift"]

    assert [is_uplift("54.245.28.22"), is_uplift("192.0.2.1")] == [True, False]
    clients[0].close()


def test_every_reason_is_documented() -> None:
    assert not [reason for reason in get_args(Reason) if f"`{reason}`" not in README]
