"""Every example in the guides for integrators works as printed."""

import json
import os
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import trustme
import urllib3
from tests.e2e.harness import OPERATOR_KEY, Server, deliveries_of, free_port, serving, settled, wait_for
from tests.e2e.receiving import Receiver

import uplift_webhooks.api
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.http.request_headers import request_headers_template
from uplift_webhooks import Reason, Webhook
from uplift_webhooks.events import read_event
from uplift_webhooks.testing import Sender, make_event, sign

from .receivers import as_django
from .scripted_api import ScriptedApi, hang_up, json_response, problem_response

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("quickstart", "receiving", "retries", "catalog", "sending", "concepts", "troubleshooting", "faq")
SECRET = "0123456789abcdef"
PUBLIC_URL = "https://webhooks.example"
PROGRAMS = str(Path(sys.executable).parent)
FRAMEWORKS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "def receive_with_flask": lambda defined: defined["app"],
    "def receive_with_fastapi": lambda defined: defined["app"],
    "def receive_with_django": lambda defined: as_django(defined["urlpatterns"]),
}
PYTHON = {
    "quickstart": ("def receive(",),
    "receiving": (
        *FRAMEWORKS,
        "def receive_plainly",
        "def store_once",
        "def store_newest",
        "client.reconcile",
        "def rotate",
    ),
    "sending": ("Emitter(", "def relay"),
}
SHELL = {"quickstart", "receiving", "retries", "sending", "troubleshooting"}
OTHERS = {
    "receiving": {"http", "js", "go", "java", "ruby", "php", "csharp"},
    "sending": {"json"},
    "catalog": {"json"},
    "concepts": {"text"},
}
"""Languages of the blocks other than Python and shell, by page.

`test_languages.py` or `test_catalog_examples.py` tests the blocks that no test in this module uses.
"""


def _text(page: str) -> str:
    return (DOCS / f"{page}.md").read_text(encoding="utf-8")


def _blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", _text(page), re.MULTILINE | re.DOTALL)


def _snippet(page: str, containing: str) -> str:
    [snippet] = [each for each in _blocks(page, "python") if containing in each]
    return snippet


def _run(page: str, containing: str) -> dict[str, Any]:
    """Run the snippet that contains a text; return its definitions."""
    namespace: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(_snippet(page, containing), f"{page}.md", "exec"), namespace)
    return namespace


@pytest.fixture(autouse=True)
def _integrator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run each test in an empty directory with the variables of an integrator."""
    monkeypatch.setenv("UPLIFT_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("UPLIFT_API_KEY", "sk_1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real server for the shell blocks."""
    with serving(tmp_path_factory.mktemp("guide") / "data") as server:
        yield server


class Account:
    """An account with a key and an endpoint, and a shell for the commands of a page."""

    def __init__(self, server: Server, receiver: Receiver, home: Path) -> None:
        self.id, self.operator = server.account()
        self.key = self.operator.ok("POST", f"/v1/accounts/{self.id}/keys", {"name": "guide"})["key"]
        self.api = server.api(self.key)
        service_key = {"name": "guide", "scopes": ["events:write"]}
        self.service_key = server.api().ok("POST", "/v1/keys", service_key)["key"]
        self.endpoint = self.operator.endpoint(receiver.url("/guide"))["id"]
        self._url, self._home = server.url, home
        self.port = free_port()
        self.environ = {
            **os.environ,
            "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(home),
            "UPLIFT_API_URL": server.url,
            "UPLIFT_API_KEY": self.key,
        }

    def shell(self, page: str, **placeholders: str) -> str:
        """Run all shell blocks of a page in one shell, and return their output.

        Commands that do not exit run in the background.
        """
        values = {
            PUBLIC_URL: self._url,
            "https://example.com/webhook": f"http://127.0.0.1:{self.port}/webhook",
            "5000": str(self.port),
            "sk_…": self.key,
            "op_…": OPERATOR_KEY,
            "svc_…": self.service_key,
            "acc_…": self.id,
            "019b7c2e-…": "019b7c2e-91a0-7000-8000-000000000000",
            **placeholders,
        }
        lines = ["trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
        for line in "\n".join(_blocks(page, "sh")).splitlines():
            command = line
            for placeholder, value in values.items():
                command = command.replace(placeholder, value)
            if line.startswith("flask"):
                command += f" > flask.txt 2>&1 &\nuntil curl -s -o seen.txt localhost:{self.port}; do sleep 0.1; done"
            elif line.startswith("uplift listen --forward"):
                command = f"{command.partition('#')[0]} > listen.txt 2>&1 &"
                command += "\nuntil grep -q ^Ready listen.txt; do sleep 0.1; done"
            elif line.startswith("uplift endpoints create"):
                command += " | tee created.txt"
            elif line.startswith(("pip install", "python3 -m venv")):
                command = ":"
            lines.append(re.sub(r"^curl ", "curl -sS --fail-with-body -w '\\\\n' ", command))
        script = "\n".join(lines)
        assert "…" not in script
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", script],
            cwd=self._home,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (script, done.stdout, done.stderr)
        return done.stdout


@pytest.fixture
def account(server: Server, tmp_path: Path) -> Iterator[Account]:
    """A new account on the server."""
    receiver = Receiver()
    yield Account(server, receiver, tmp_path)
    receiver.close()


def test_every_block_has_a_test() -> None:
    for page in PAGES:
        languages = set(re.findall(r"^```(\w+)$", _text(page), re.MULTILINE))
        python = PYTHON.get(page, ())
        expected = OTHERS.get(page, set()) | ({"python"} if python else set()) | ({"sh"} if page in SHELL else set())
        assert languages == expected, page
        assert [sum(text in snippet for text in python) for snippet in _blocks(page, "python")] == [1] * len(python)


def test_the_quickstart_leads_to_a_verified_event(account: Account, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(_snippet("quickstart", "def receive("), encoding="utf-8")

    output = account.shell(
        "quickstart",
        **{"whsec_…": "$(sed -n 's/^secret *//p' created.txt)", "ep_…": "$(sed -n 's/^id *//p' created.txt)"},
    )

    assert re.search(r"^outcome +delivered$", output, re.MULTILINE)
    assert re.search(
        r"^movement\.analytics\.created [0-9a-f-]{36}$", (tmp_path / "flask.txt").read_text(), re.MULTILINE
    )


def test_local_development_forwards_an_event(account: Account, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(_snippet("receiving", "def receive_with_flask"), encoding="utf-8")

    # The authentication of an endpoint requires https.
    encrypted = account.api.ok("POST", "/v1/endpoints", {"url": "https://receiver.example/webhook"})["id"]
    (tmp_path / "secret.txt").write_text("client secret\n")
    certificate = trustme.CA().issue_cert("client.example")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "client.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "client.key")

    account.shell("receiving", **{"whsec_…": "whsec_" + "A" * 43 + "=", "ep_…": encrypted})

    assert re.search(
        r"^movement\.analytics\.created [0-9a-f-]{36}$", (tmp_path / "flask.txt").read_text(), re.MULTILINE
    )


def test_the_commands_about_retries_work(account: Account) -> None:
    event = account.operator.send(1).json["id"]
    [delivery] = deliveries_of(account.operator, event)
    settled(account.operator, delivery["id"])

    output = account.shell("retries", **{"dlv_…": delivery["id"], "ep_…": account.endpoint})

    assert '"current":["54.245.28.22"]' in output
    assert account.api.ok("GET", f"/v1/deliveries/{delivery['id']}")["status"] == "delivered"


def test_the_commands_about_sending_work(account: Account, tmp_path: Path) -> None:
    (tmp_path / "emit.py").write_text(_snippet("sending", "def relay"), encoding="utf-8")

    responses = [json.loads(line) for line in account.shell("sending").splitlines() if line]

    first, batch, expiring, event_type = responses
    documented, with_ordering_key = map(json.loads, _blocks("sending", "json"))
    assert {name: type(value) for name, value in first.items()} == {
        name: type(value) for name, value in documented.items()
    }
    account.operator.ok("POST", "/v1/events", with_ordering_key)
    assert [each["type"] for each in batch["data"]] == ["athlete.created", "athlete.updated"]
    assert account.operator.ok("GET", f"/v1/events/{expiring['id']}")["expires_at"] == "2100-01-01T00:00:00.000Z"
    assert event_type["name"] == "session.scheduled"
    # The registration event, the five events above, and one from the program.
    assert len(account.api.list_all("/v1/events")) == 7


def test_a_recorded_request_is_verified(account: Account, tmp_path: Path) -> None:
    body = make_event()
    headers = sign(body, SECRET)
    (tmp_path / "body.json").write_bytes(body)
    (tmp_path / "headers.txt").write_text("".join(f"{name}: {value}\n" for name, value in headers.items()))

    account.shell("troubleshooting")


def test_the_library_sends_an_event(account: Account, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for name, value in {"KEY": account.service_key, "ACCOUNT": account.id, **account.environ}.items():
        monkeypatch.setenv(name, value)

    _run("sending", "Emitter(")

    assert capsys.readouterr().out == "1 event accepted\n"


def test_the_program_retries_events_and_keeps_rejected_ones(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UPLIFT_API_URL", f"{api.url}/v1/")
    monkeypatch.setenv("KEY", "op_1")
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    accepted = json_response({"id": "e", "duplicate": False}, 202)
    api.script = [
        hang_up,
        problem_response(503, "unavailable", retry_after="7"),
        accepted,
        problem_response(422, "validation_failed"),
        accepted,
    ]
    defined = _run("sending", "def relay")
    database = sqlite3.connect(":memory:")
    database.executescript(defined["TABLES"])
    for athlete in ("a1", "a2", "a3"):
        defined["add_athlete"](database, "acc_1", athlete, "Ana")
    with pytest.raises(sqlite3.IntegrityError):
        defined["add_athlete"](database, "acc_1", "a1", "Ana")

    defined["relay"](database)
    defined["relay"](database)

    sent = [(request.json["data"]["object"]["id"], request.json["id"]) for request in api.requests]
    assert [athlete for athlete, _ in sent] == ["a1", "a1", "a1", "a2", "a3"]
    assert len(set(sent)) == 3
    assert waits == [1, 7]
    assert {request.headers["uplift-account"] for request in api.requests} == {"acc_1"}
    assert {request.target for request in api.requests} == {"/v1/events"}
    [(body, problem)] = database.execute("SELECT body, problem FROM outbox").fetchall()
    assert json.loads(body)["id"] == sent[3][1]
    assert "validation_failed" in problem
    assert capsys.readouterr().err.splitlines()[-1] == f"rejected: acc_1: {problem}"
    database.close()


@pytest.mark.parametrize(
    "response",
    [
        json_response(None, 301, location="/v1/events"),
        json_response({}, 200),
        json_response({}, 404),
        problem_response(401, "unauthorized"),
    ],
    ids=["redirect", "another server", "wrong URL", "wrong key"],
)
def test_the_program_stops_and_keeps_the_event_unless_the_server_accepted_it(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch, response: bytes
) -> None:
    """urllib would follow the redirect with GET, to which the server responds with 200."""
    monkeypatch.setenv("UPLIFT_API_URL", api.url)
    monkeypatch.setenv("KEY", "op_1")
    api.script = [response, json_response({"data": []}, 200)]
    defined = _run("sending", "def relay")
    database = sqlite3.connect(":memory:")
    database.executescript(defined["TABLES"])
    defined["add_athlete"](database, "acc_1", "a1", "Ana")

    with pytest.raises(SystemExit):
        defined["relay"](database)

    assert len(api.requests) == 1
    assert database.execute("SELECT problem FROM outbox").fetchall() == [(None,)]
    database.close()


def test_the_sample_request_has_every_header_and_verifies() -> None:
    [sample] = _blocks("receiving", "http")
    head, _, shown = sample.partition("\n\n")
    request_line, *lines = head.splitlines()
    headers = dict(line.split(": ", 1) for line in lines)
    body = json.dumps(json.loads(shown), separators=(",", ":"), ensure_ascii=False).encode()
    sent = request_headers_template(
        path="/webhook", host_header="example.com", user_agent="", custom={"x-team": "blue"}, endpoint_id=bytes(16)
    )
    rendered = sent.render(
        event_id=b"",
        event_hex=b"",
        event_type=b"",
        number=1,
        timestamp=b"",
        signatures=(b"", b""),
        body_bytes=len(body),
    )
    names = [line.partition(b":")[0].decode() for line in (rendered + sent.custom).splitlines()[1:] if line]
    [secret] = re.findall(r"The secret is `([^`]+)`", _text("receiving"))

    assert request_line == "POST /webhook HTTP/1.1"
    assert list(headers) == names
    assert headers["content-length"] == str(len(body))
    assert headers["x-uplift-event"] == json.loads(body)["type"]
    assert headers["webhook-id"] == json.loads(body)["id"]
    expected = sign(body, secret, timestamp=int(headers["webhook-timestamp"]))
    assert {name: headers[name] for name in expected} == expected


@pytest.mark.parametrize("snippet", FRAMEWORKS)
def test_receivers_accept_and_reject(snippet: str, capsys: pytest.CaptureFixture[str]) -> None:
    sender = Sender(FRAMEWORKS[snippet](_run("receiving", snippet)), SECRET)

    assert sender.post(make_event(id="e_1")).status == 204
    assert sender.post_with_bad_signature().status == 401
    assert capsys.readouterr().out == "movement.analytics.created e_1\n"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# The test of local development runs Flask.
@pytest.mark.parametrize("snippet", [each for each in FRAMEWORKS if "flask" not in each])
def test_receivers_run_with_the_documented_command(snippet: str, tmp_path: Path) -> None:
    code = _snippet("receiving", snippet)
    command = re.findall(r"`([^`]+ 5000)`", _text("receiving").partition(code)[2].partition("\n#")[0])[0]
    environ = {**os.environ, "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"}
    file = tmp_path / "app.py"
    if "django" in snippet:
        subprocess.run(["django-admin", "startproject", "project", "."], check=True, env=environ)
        file = tmp_path / "project/urls.py"
    file.write_text(code, encoding="utf-8")
    port = free_port()
    body = make_event()

    with subprocess.Popen(shlex.split(command.replace("5000", str(port))), env=environ, start_new_session=True) as runs:
        try:
            wait_for(lambda: _listens(port), "it listens")
            response = urllib3.request(
                "POST", f"http://127.0.0.1:{port}/webhook", body=body, headers=sign(body, SECRET), retries=False
            )
        finally:
            os.killpg(runs.pid, signal.SIGTERM)

    assert response.status == 204


def test_the_plain_receiver_accepts_and_rejects(capsys: pytest.CaptureFixture[str]) -> None:
    receive = _run("receiving", "def receive_plainly")["receive_plainly"]
    body = make_event(id="e_1")

    assert receive(body, sign(body, SECRET)) == 204
    assert receive(body + b" ", sign(body, SECRET)) == 400
    accepted, rejected = capsys.readouterr().out.splitlines()
    assert accepted == "movement.analytics.created e_1"
    assert rejected.endswith("[no_matching_signature]")


def test_an_event_is_stored_once() -> None:
    defined = _run("receiving", "def store_once")
    for event_id in ("a", "b", "a"):
        defined["store_once"](read_event(json.loads(make_event(id=event_id)), None))
    defined["seen"].close()

    assert [defined["jobs"].get_nowait().id for _ in range(defined["jobs"].qsize())] == ["a", "b"]


def test_an_older_event_does_not_replace_a_newer_one(capsys: pytest.CaptureFixture[str]) -> None:
    defined = _run("receiving", "def store_newest")
    for created, event_id in ((2, "b"), (1, "a"), (2, "b"), (3, "c")):
        defined["store_newest"](read_event(json.loads(make_event(id=event_id, created=created)), None))
    defined["seen"].close()

    assert capsys.readouterr().out == "store b\nstore c\n"


def test_reconciling_continues_where_it_stopped(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UPLIFT_API_URL", api.url)
    page = {"data": [{"id": "e_1", "type": "athlete.created"}], "next_cursor": "one", "has_more": False}
    api.script = [
        json_response(page),
        json_response({"body": json.loads(make_event("athlete.created", id="e_1"))}),
        json_response({"data": [], "next_cursor": "one", "has_more": False}),
    ]

    _run("receiving", "client.reconcile")
    _run("receiving", "client.reconcile")

    assert capsys.readouterr().out == "reconciled e_1\n"
    assert api.requests[-1].target.endswith("cursor=one")


def test_a_rotation_deploys_the_new_secret_before_it_is_used(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPLIFT_API_URL", api.url)
    api.script = [json_response({"previous_expires_at": None})]
    deployed: list[tuple[str, int]] = []

    _run("receiving", "def rotate")["rotate"]("ep_1", lambda secret: deployed.append((secret, len(api.requests))))

    [(secret, calls_before)] = deployed
    assert calls_before == 0
    assert api.requests[0].target == "/v1/endpoints/ep_1/secret/rotate"
    assert api.requests[0].json == {"secret": secret}
    body = make_event()
    Webhook([secret, SECRET]).verify(body, sign(body, [secret, SECRET]))


def test_troubleshooting_covers_every_failure_and_error() -> None:
    covered = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]+)\|", _text("troubleshooting"), re.MULTILINE))))

    assert {outcome.text for outcome in Outcome} - {"delivered"} <= covered
    assert {*get_args(Reason)} <= covered
    assert {"EventInProgress", "ApiError", "ApiUnreachable"} <= covered
    assert {"ApiError", "ApiUnreachable"} <= {*uplift_webhooks.api.__all__}
