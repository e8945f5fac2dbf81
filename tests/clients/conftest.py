"""A real server, its OpenAPI document and a receiver for generated clients."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import pytest
import urllib3
from tests.e2e.harness import OPERATOR_KEY, Server, serving
from tests.e2e.receiving import Receiver, after_failing

GUIDE: Final = Path(__file__).parents[2] / "docs/generate-a-client.md"
SECONDS_MAX: Final = 60
"""Time limit of one command."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that retries a failed attempt after 300 ms."""
    with serving(tmp_path_factory.mktemp("clients") / "data") as server:
        yield server


@pytest.fixture(scope="module")
def document(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the OpenAPI document that the server sends."""
    path = tmp_path_factory.mktemp("document") / "openapi.json"
    path.write_bytes(urllib3.request("GET", f"{server.url}/openapi.json").data)
    return path


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver of events."""
    receiver = Receiver()
    yield receiver
    receiver.close()


def run(command: Sequence[str | Path], directory: Path, **environ: str) -> str:
    """Run a command in a directory, and return its output. Fail with the output if the command fails."""
    done = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, f"{command[0]} failed:\n{done.stdout}{done.stderr}"
    return done.stdout


def guide_program(server: Server, language: str) -> str:
    """Return the program that the guide shows for a language, with the URL of the server and an API key."""
    account, _ = server.account()
    key = server.api().ok("POST", f"/v1/accounts/{account}/keys", {"name": "guide"})["key"]
    code = re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    return "\n".join(code).replace("https://webhooks.example", server.url).replace("sk_…", key)


def check_tour(take: Callable[[dict[str, str]], str], server: Server, receiver: Receiver, document: Path) -> Any:
    """Take the tour with a client, compare its results with the server and the receiver, and return the results."""
    url = receiver.url("/hook", after_failing(1))
    environ = {"UPLIFT_API_URL": server.url, "UPLIFT_API_KEY": OPERATOR_KEY, "RECEIVER_URL": url}
    saw = json.loads(take(environ))
    api = server.api(account=saw["account"])
    assert saw["replayed"] == "true"
    assert saw["description"] == api.ok("GET", f"/v1/endpoints/{saw['endpoint']}")["description"] == "tour"
    assert saw["outcomes"] == [
        [3, "resend", "delivered"],
        [2, "schedule", "delivered"],
        [1, "schedule", "server_error"],
    ]
    assert saw["filtered"] == [saw["delivery"]]
    assert saw["rejected"] == ["validation_failed", "url"]
    assert saw["missing"] == [404, "not_found"]
    [event] = {each.body for each in receiver.requests if each.headers["webhook-id"] == saw["event"]}
    assert json.loads(event)["data"]["object"]["custom_attributes"] == {"team": "Rapids"}
    check_webhooks(json.loads(document.read_bytes()), receiver)
    return saw


def check_webhooks(document: Any, receiver: Receiver) -> None:
    """Check that the `webhooks` of the document describe the received requests."""
    assert {each.json["type"] for each in receiver.requests} == {"webhook.created", "athlete.created"}
    for each in receiver.requests:
        webhook = document["webhooks"][each.json["type"]]["post"]
        schema = webhook["requestBody"]["content"]["application/json"]["schema"]
        components = {"components": {"schemas": document["components"]["schemas"]}}
        jsonschema_rs.Draft202012Validator({**schema, **components}).validate(each.json)
        described = {parameter["$ref"].rpartition("/")[2] for parameter in webhook["parameters"]}
        assert described == {name for name in each.headers if name.startswith(("webhook-", "x-uplift-"))}
