"""API errors name the options of the command."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.cli.fake_api import Asked, fake_api
from tests.receiver.cli.test_program import COMMANDS, SERVERLESS, run

FIELDLESS = {
    ("events", "show"), ("deliveries", "show"), ("deliveries", "resend"), ("endpoints", "show"), ("endpoints", "pause"),
    ("ips",),
}  # fmt: skip
"""Commands whose requests have no fields."""
REFUSABLE = {
    ("listen",): ["--events", "movement.*", "--since", "x", "--forward-to", "5000"],
    ("trigger",): ["athlete.created", "--session", "lsn_1"],
    ("events", "list"): ["--type", "athlete.created"],
    ("deliveries", "list"): ["--status", "x", "--endpoint", "ep_1", "--type", "athlete.created"],
    ("endpoints", "list"): ["--state", "x", "--text", "y"],
    ("endpoints", "create"): ["https://x.example/", "--type", "a.*", "--description", "d", "--max-in-flight", "0"],
    ("endpoints", "enable"): ["ep_1", "--held", "x"],
    ("endpoints", "test"): ["ep_1", "--type", "athlete.created"],
}


def test_every_command_is_walked() -> None:
    assert {*SERVERLESS, *FIELDLESS, *REFUSABLE} == set(COMMANDS)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[set[str]]]:
    """Reject every request for all of its fields; return the fields of each request."""
    sent: list[set[str]] = []

    def answer(asked: Asked) -> Any:
        fields = {*(asked.body or {}), *asked.query} - {"limit", "cursor"}
        if fields:
            sent.append(fields)
            errors = [{"field": each, "code": "wrong", "message": f"Not `{each}` = `x`."} for each in sorted(fields)]
            return 422, {"code": "validation_failed", "status": 422, "errors": errors}, {}
        return {"id": asked.path.rpartition("/")[2], "data": [], "next_cursor": None}

    with fake_api() as api:
        api.answer = answer  # type: ignore[method-assign]
        monkeypatch.setenv("UPLIFT_API_URL", api.url)
        monkeypatch.setenv("UPLIFT_API_KEY", "sk_1")
        yield sent


@pytest.mark.parametrize("path", REFUSABLE, ids=" ".join)
def test_a_refusal_names_the_commands_own_options(path: tuple[str, ...], refused: list[set[str]]) -> None:
    result = run(*path, *REFUSABLE[path])
    assert result.exit_code == 2, result.stderr
    [fields] = refused
    cause = next(line for line in result.stderr.splitlines() if line.startswith("Error:"))
    own = {option for parameter in COMMANDS[path].params for option in parameter.opts}
    assert set(re.findall(r"--[a-z-]+", cause)) <= own
    # The description of the session is not an option of `listen`.
    for field in fields - ({"description"} if path == ("listen",) else set()):
        assert f"`{field}`" not in cause
        assert not re.search(rf"(?:Error:|;) {field}\b", cause)
