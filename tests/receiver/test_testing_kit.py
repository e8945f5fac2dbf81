"""Testing kit: events, a sender for every kind of receiver, and pytest fixtures."""

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from uplift_server.core.events import envelope
from uplift_server.core.events.catalog import EVENT_TYPES
from uplift_webhooks import AnyEvent, testing
from uplift_webhooks.testing import Sender, make_event
from uplift_webhooks.testing.events import API_VERSION

from .receivers import APPLICATIONS, CLIENTS, SECRET

EXAMPLES = Path(testing.__file__).with_name("examples.json")


def test_the_examples_match_the_catalog() -> None:
    """To fix a failure, write the catalog's examples to the file, by name, with an indent of 2."""
    examples = json.loads(json.dumps({each.name: each.example for each in EVENT_TYPES}))
    assert json.loads(EXAMPLES.read_text(encoding="utf-8")) == examples


@pytest.mark.parametrize("name", [each.name for each in EVENT_TYPES])
def test_an_event_has_the_bytes_that_the_server_sends(name: str) -> None:
    [example] = [each.example for each in EVENT_TYPES if each.name == name]
    data = json.dumps(example, separators=(",", ":"), ensure_ascii=False).encode()
    event_id = str(uuid.uuid4())

    assert make_event(name, id=event_id, created=7) == envelope.build(event_id, name, API_VERSION, 7, data)


def test_an_event_has_a_new_id_and_the_current_time() -> None:
    before = time.time_ns() // 1_000_000
    first, second = json.loads(make_event()), json.loads(make_event())

    assert before <= first["created"] <= second["created"] <= time.time_ns() // 1_000_000
    ids = [uuid.UUID(each["id"]) for each in (first, second)]
    assert ids[0] != ids[1]
    assert [(each.version, each.variant) for each in ids] == [(7, uuid.RFC_4122)] * 2
    assert ids[0].int >> 80 == first["created"]


def test_an_events_data_can_be_changed_or_replaced() -> None:
    changed = json.loads(make_event("athlete.updated", level="college", changed=["level"]))["data"]["object"]
    assert (changed["level"], changed["changed"], changed["first_name"]) == ("college", ["level"], "Caleb")
    assert json.loads(make_event("athlete.updated"))["data"]["object"]["level"] == "youth"
    assert json.loads(make_event("pitch.tracked", data={"speed": 41.5}))["data"] == {"speed": 41.5}
    with pytest.raises(ValueError, match=r"'pitch.tracked' is not in the catalog"):
        make_event("pitch.tracked")
    with pytest.raises(ValueError, match="cannot combine it with speed"):
        make_event("pitch.tracked", data={}, speed=5)


RECEIVERS: dict[str, Callable[..., Any]] = {
    **APPLICATIONS,
    **{f"{name}'s client": make for name, make in CLIENTS.items()},
}


@pytest.mark.parametrize("name", RECEIVERS)
def test_the_sender_posts_to_every_kind_of_receiver(name: str) -> None:
    handled: list[AnyEvent] = []
    sender = Sender(RECEIVERS[name](handled.append), SECRET)

    assert sender.post(make_event(id="a")).status == 204
    assert sender.post_with_bad_signature().status == 401
    assert [response.status for response in sender.post_twice(make_event(id="b"))] == [204, 204]
    assert [response.status for response in sender.post_out_of_order()] == [204, 204]
    rejected = sender.post(headers={"Webhook-Timestamp": "1"})
    assert (rejected.status, rejected.accepted) == (401, False)
    assert "timestamp_too_old" in rejected.body.decode()
    assert rejected.headers["content-type"].startswith(("text/plain", "application/json"))
    assert len(sender.post_twice()) == 2

    assert [event.id for event in handled[:3]] == ["a", "b", "b"]
    newer, older = handled[3:5]
    assert newer.created - older.created == 60_000
    assert newer.data == older.data
    assert newer.id != older.id


def test_given_events_can_be_sent_out_of_order() -> None:
    handled: list[AnyEvent] = []
    sender = Sender(APPLICATIONS["wsgi"](handled.append), SECRET)

    sender.post_out_of_order(make_event(id="older"), make_event(id="newer"))

    assert [event.id for event in handled] == ["newer", "older"]


async def test_the_sender_works_in_a_running_event_loop() -> None:
    handled: list[AnyEvent] = []
    assert Sender(APPLICATIONS["fastapi"](handled.append), SECRET).post().accepted
    assert len(handled) == 1


def test_a_wsgi_response_is_closed_and_can_use_write() -> None:
    closed: list[bool] = []

    class Content(list[bytes]):
        def close(self) -> None:
            closed.append(True)

    def application(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("X-Old", "yes")])(b"writ")
        return Content([b"ten"])

    response = Sender(application, SECRET).post()
    assert (response.status, response.headers, response.body, closed) == (200, {"x-old": "yes"}, b"written", [True])


def test_an_invalid_receiver_is_rejected() -> None:
    with pytest.raises(TypeError, match="An object of the type str is not a receiver"):
        Sender("http://localhost:5000", SECRET)


@pytest.fixture
def uplift_receiver() -> Any:
    """Define the fixture, as integrators do."""
    handled: list[AnyEvent] = []
    return APPLICATIONS["flask"](handled.append)


@pytest.fixture
def uplift_secret() -> str:
    """Return the secret of the receiver."""
    return SECRET


def test_the_fixtures_are_available_without_an_import(uplift: Sender, uplift_path: str) -> None:
    assert uplift_path == "/webhook"
    assert uplift.post().accepted
    assert not uplift.post_with_bad_signature().accepted


def _pytest(where: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        check=False,
        capture_output=True,
        text=True,
        cwd=where,
        env={**os.environ, **environ},
    )


def test_a_missing_receiver_fixture_is_explained(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_it.py").write_text(
        "def test_secret(uplift_secret):\n    assert uplift_secret.startswith('whsec_')\n"
        "def test_missing(uplift):\n    pass\n"
    )
    run = _pytest(tmp_path)
    assert "1 passed, 1 error" in run.stdout
    assert "Define a fixture uplift_receiver" in run.stdout


def test_the_secret_comes_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_it.py").write_text(f"def test_secret(uplift_secret):\n    assert uplift_secret == {SECRET!r}\n")
    run = _pytest(tmp_path, UPLIFT_WEBHOOK_SECRET=f"{SECRET} 0123456789abcdef")
    assert "1 passed" in run.stdout
