"""The integrator's guide works as printed."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import urllib3
from tests.e2e.harness import free_port, wait_for

import uplift_webhooks.api
from uplift_webhooks import Reason, Webhook
from uplift_webhooks.events import read_event
from uplift_webhooks.testing import Sender, make_event, sign

from .receivers import as_django
from .scripted_api import ScriptedApi, answer

GUIDE = (Path(__file__).parents[2] / "docs/guide.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
SECRET = "0123456789abcdef"
FRAMEWORKS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "def receive_with_flask": lambda defined: defined["app"],
    "def receive_with_fastapi": lambda defined: defined["app"],
    "def receive_with_django": lambda defined: as_django(defined["urlpatterns"]),
}
OTHERS = (
    "client.endpoints.create",
    "def receive_plainly",
    "def store_once",
    "def store_newest",
    "client.reconcile",
    "def rotate",
)


def _run(containing: str) -> dict[str, Any]:
    """Run the one snippet that contains a text; what it defined."""
    [snippet] = [each for each in SNIPPETS if containing in each]
    namespace: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(snippet, "guide.md", "exec"), namespace)
    return namespace


@pytest.fixture(autouse=True)
def _in_an_integrators_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UPLIFT_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("UPLIFT_API_KEY", "sk_1")
    monkeypatch.chdir(tmp_path)


def test_every_snippet_is_run_by_a_test_below() -> None:
    assert [sum(text in snippet for text in (*FRAMEWORKS, *OTHERS)) for snippet in SNIPPETS] == [1] * len(SNIPPETS)
    assert len(SNIPPETS) == len(FRAMEWORKS) + len(OTHERS)


@pytest.mark.parametrize("snippet", FRAMEWORKS)
def test_the_receivers_of_frameworks_receive_and_refuse(snippet: str, capsys: pytest.CaptureFixture[str]) -> None:
    sender = Sender(FRAMEWORKS[snippet](_run(snippet)), SECRET)

    assert sender.post(make_event(id="e_1")).status == 204
    assert sender.post_with_bad_signature().status == 401
    assert capsys.readouterr().out == "movement.analytics.created e_1\n"


def listens(port: int) -> bool:
    """Whether anything takes connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("snippet", FRAMEWORKS)
def test_the_receivers_of_frameworks_run_as_the_guide_says(snippet: str, tmp_path: Path) -> None:
    [code] = [each for each in SNIPPETS if snippet in each]
    command = re.findall(r"`([^`]+ 5000)`", GUIDE.partition(code)[2].partition("\n#")[0])[0]
    programs = Path(sys.executable).parent
    environ = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    file = tmp_path / "app.py"
    if "django" in snippet:
        subprocess.run(["django-admin", "startproject", "project", "."], check=True, env=environ)
        file = tmp_path / "project/urls.py"
    file.write_text(code, encoding="utf-8")
    port = free_port()
    body = make_event()

    with subprocess.Popen(shlex.split(command.replace("5000", str(port))), env=environ, start_new_session=True) as runs:
        try:
            wait_for(lambda: listens(port), "it listens")
            answered = urllib3.request(
                "POST", f"http://127.0.0.1:{port}/webhook", body=body, headers=sign(body, SECRET), retries=False
            )
        finally:
            os.killpg(runs.pid, signal.SIGTERM)

    assert answered.status == 204


def test_the_plain_receiver_receives_and_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    receive = _run("def receive_plainly")["receive_plainly"]
    body = make_event(id="e_1")

    assert receive(body, sign(body, SECRET)) == 204
    assert receive(body + b" ", sign(body, SECRET)) == 400
    taken, refused = capsys.readouterr().out.splitlines()
    assert taken == "movement.analytics.created e_1"
    assert refused.startswith("refused: ")
    assert refused.endswith("[no_matching_signature]")


def test_an_event_is_stored_once() -> None:
    defined = _run("def store_once")
    for event_id in ("a", "b", "a"):
        defined["store_once"](read_event(json.loads(make_event(id=event_id)), None))
    defined["seen"].close()

    assert [defined["jobs"].get_nowait().id for _ in range(defined["jobs"].qsize())] == ["a", "b"]


def test_an_older_event_does_not_replace_a_newer_one(capsys: pytest.CaptureFixture[str]) -> None:
    defined = _run("def store_newest")
    for created, event_id in ((2, "b"), (1, "a"), (2, "b"), (3, "c")):
        defined["store_newest"](read_event(json.loads(make_event(id=event_id, created=created)), None))
    defined["seen"].close()

    assert capsys.readouterr().out == "store b\nstore c\n"


def test_an_endpoint_is_registered(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UPLIFT_API_URL", api.url)
    api.script = [answer({"id": "ep_1", "secret": "whsec_x"}, 201)]

    _run("client.endpoints.create")

    assert api.asked[0].json == {"url": "https://example.com/webhook", "event_types": ["movement.*"]}
    assert capsys.readouterr().out == "ep_1 whsec_x\n"


def test_reconciling_goes_on_where_it_stopped(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UPLIFT_API_URL", api.url)
    page = {"data": [{"id": "e_1", "type": "athlete.created"}], "next_cursor": "one", "has_more": False}
    api.script = [
        answer(page),
        answer({"body": json.loads(make_event("athlete.created", id="e_1"))}),
        answer({"data": [], "next_cursor": "one", "has_more": False}),
    ]

    _run("client.reconcile")
    _run("client.reconcile")

    assert capsys.readouterr().out == "reconciled e_1\n"
    assert api.asked[-1].target.endswith("cursor=one")


def test_a_rotation_deploys_the_new_secret_before_it_is_used(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPLIFT_API_URL", api.url)
    api.script = [answer({"previous_expires_at": None})]
    deployed: list[tuple[str, int]] = []

    _run("def rotate")["rotate"]("ep_1", lambda secret: deployed.append((secret, len(api.asked))))

    [(secret, calls_before)] = deployed
    assert calls_before == 0
    assert api.asked[0].target == "/v1/endpoints/ep_1/secret/rotate"
    assert api.asked[0].json == {"secret": secret}
    body = make_event()
    Webhook([secret, SECRET]).verify(body, sign(body, [secret, SECRET]))


def test_every_error_of_the_library_has_a_remedy() -> None:
    section = GUIDE.partition("## When something fails")[2].partition("## The catalog")[0]
    remedied = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]+)\|", section, re.MULTILINE))))

    assert not {*get_args(Reason)} - remedied
    assert {"EventInProgress", "ApiError", "ApiUnreachable"} <= remedied
    assert {"ApiError", "ApiUnreachable"} <= {*uplift_webhooks.api.__all__}
