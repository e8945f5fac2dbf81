"""The filter of an endpoint and its preview in `uplift`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.fake_api import FakeApi, fake_api
from tests.receiver.cli.test_program import run
from typer.testing import CliRunner

from uplift_webhooks.cli.main import app

ENDPOINT = {"id": "ep_1", "url": "https://x.example/", "state": "enabled", "event_types": [], "filter": {"a": [1]}}
PREVIEW = {
    "total": 2,
    "matched": 1,
    "events": [
        {"id": "e2", "type": "athlete.created", "matches": False, "path": "data.a"},
        {"id": "e1", "type": "athlete.created", "matches": True, "path": None},
    ],
}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    with fake_api() as found:
        found.responses |= {
            "GET /v1/endpoints/ep_1": ENDPOINT,
            "GET /v1/endpoints": {"data": [ENDPOINT], "next_cursor": None},
            "POST /v1/endpoints": (201, {**ENDPOINT, "secret": "whsec_x"}, {}),
            "PATCH /v1/endpoints/ep_1": ENDPOINT,
            "POST /v1/endpoints/filter-preview": PREVIEW,
        }
        monkeypatch.setenv("UPLIFT_API_URL", found.url)
        monkeypatch.setenv("UPLIFT_API_KEY", "sk_1")
        yield found


def sent(api: FakeApi, *arguments: str) -> Any:
    """Run a command, and return the body of its last request."""
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    return api.requests[-1].body


def test_a_filter_is_json_a_file_or_none(api: FakeApi, tmp_path: Path) -> None:
    file = tmp_path / "filter.json"
    file.write_text('{"a": [1]}\n')
    for text in ('{"a": [1]}', f"@{file}"):
        assert sent(api, "endpoints", "create", "https://x.example/", "--filter", text)["filter"] == {"a": [1]}
        assert sent(api, "endpoints", "update", "ep_1", "--filter", text) == {"filter": {"a": [1]}}
    assert sent(api, "endpoints", "update", "ep_1", "--filter", "none") == {"filter": None}
    assert "filter" not in sent(api, "endpoints", "create", "https://x.example/")
    assert sent(api, "endpoints", "update", "ep_1", "--url", "x") == {"url": "x"}
    shown = run("endpoints", "show", "ep_1")
    assert '{"a": [1]}' in shown.stdout


@pytest.mark.parametrize("text", ["{", "[1", "@missing.json", "{'a': [1]}"])
def test_an_invalid_filter_is_rejected_before_the_call(api: FakeApi, text: str) -> None:
    for command in (["create", "https://x.example/", "--filter", text], ["preview-filter", text]):
        result = run("endpoints", *command)
        assert result.exit_code == 2
        assert "JSON" in result.stderr
    assert not [each for each in api.requests if each.method == "POST"]


def test_a_large_file_is_not_a_filter(api: FakeApi, tmp_path: Path) -> None:
    file = tmp_path / "filter.json"
    file.write_text(json.dumps({"a": ["x" * 70_000]}))
    result = run("endpoints", "preview-filter", f"@{file}")
    assert (result.exit_code, "65536 bytes" in result.stderr) == (2, True)


def test_a_preview_lists_the_events(api: FakeApi) -> None:
    body = sent(api, "endpoints", "preview-filter", '{"a": [1]}', "--type", "athlete.*", "--limit", "2")
    assert body == {"filter": {"a": [1]}, "event_types": ["athlete.*"], "limit": 2}
    shown = run("endpoints", "preview-filter", "none")
    assert shown.stdout.splitlines()[1:] == ["e2\tathlete.created\tno\tdata.a", "e1\tathlete.created\tyes\t-"]
    assert "1 of 2 events match" in shown.stderr
    assert json.loads(run("endpoints", "preview-filter", "none", "--json").stdout) == PREVIEW
    api.responses["POST /v1/endpoints/filter-preview"] = {"total": 0, "matched": 0, "events": []}
    assert run("endpoints", "preview-filter", "none").stdout == ""


def test_a_problem_names_the_path_in_the_option(api: FakeApi) -> None:
    problem = {"field": "filter.a.0.prefx", "code": "filter_invalid", "message": "The operator does not exist."}
    api.responses["PATCH /v1/endpoints/ep_1"] = (422, {"code": "validation_failed", "errors": [problem]}, {})
    result = run("endpoints", "update", "ep_1", "--filter", '{"a": [{"prefx": "x"}]}')
    assert result.exit_code == 2
    assert "--filter at a.0.prefx" in result.stderr


def test_a_filter_can_come_from_standard_input(api: FakeApi) -> None:
    CliRunner().invoke(app, ["endpoints", "update", "ep_1", "--filter", "@-"], input='{"a": [1]}')
    assert api.requests[-1].body == {"filter": {"a": [1]}}
