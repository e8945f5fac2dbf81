"""The error for a missing argument lists its choices, if they are few."""

import json

import pytest
from tests.cli.fake_api import fake_api
from tests.receiver.cli.test_program import run


def cause(*arguments: str, **environ: str) -> str:
    result = run(*arguments, "--json", **environ)
    error = json.loads(result.stderr)["error"]
    assert (result.exit_code, error["exit_code"]) == (2, 2)
    return str(error["cause"])


def test_a_missing_argument_lists_its_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_api() as api:
        endpoints = [{"id": f"ep_{number}", "url": "https://x.example/hook"} for number in (1, 2)]
        api.responses = {
            "GET /v1/endpoints": {"data": endpoints, "next_cursor": None},
            "GET /v1/event-types": {
                "data": [{"name": f"athlete.a{number}"} for number in range(11)],
                "next_cursor": None,
            },
        }
        environ = {"UPLIFT_API_URL": api.url, "UPLIFT_API_KEY": "sk_1"}
        expected = (
            "Missing argument 'ENDPOINT'. Choose one of: ep_1 (https://x.example/hook), ep_2 (https://x.example/hook)"
        )
        assert cause("endpoints", "pause", **environ) == expected
        assert cause("endpoints", "pause", "--api-url", api.url, "--api-key", "sk_1") == expected
        assert (
            cause("event-types", "show", **environ)
            == "Missing argument 'TYPE'. To list all event types: `uplift event-types`"
        )
        assert cause("deliveries", "show", **environ) == "Missing argument 'DELIVERY'"
    assert cause("endpoints", "pause", **environ) == "Missing argument 'ENDPOINT'"
    assert cause("endpoints", "pause") == "Missing argument 'ENDPOINT'"
