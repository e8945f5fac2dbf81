"""API errors name the options of the command."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.cli.fake_api import Request, fake_api
from tests.receiver.cli.test_program import COMMANDS, SERVERLESS, run

COMMANDS_WITHOUT_FIELDS = {
    ("events", "show"), ("deliveries", "show"), ("endpoints", "show"), ("endpoints", "pause"),
    ("endpoints", "verify"), ("ips",), ("endpoints", "delete"), ("endpoints", "secret", "show"),
    ("endpoints", "secret", "expire-old"), ("event-types", "list"), ("event-types", "show"),
    ("deliveries", "cancel"), ("replays", "list"), ("replays", "show"), ("replays", "pause"), ("replays", "resume"),
    ("replays", "cancel"), ("attempts", "show"), ("rejected-events", "show"),
}  # fmt: skip
"""Commands whose requests have no fields."""
DELIVERY_FILTERS = ["--status", "x", "--type", "a", "--outcome", "z", "--status-code", "1", "--object-id", "o"]
SETTINGS = ["--max-in-flight", "0", "--retry-schedule", "0s", "--attempt-timeout", "x", "--filter", "{}"]
COMMANDS_WITH_FIELDS = {
    ("listen",): ["--events", "movement.*", "--since", "x", "--forward-to", "5000"],
    ("trigger",): ["athlete.created", "--session", "lsn_1"],
    ("events", "list"): ["--type", "athlete.created", "--object-id", "o_1"],
    ("reconcile",): ["--type", "athlete.created", "--after", "a"],
    ("endpoints", "secret", "rotate"): ["ep_1", "--overlap", "2h", "--uplift-header", "x"],
    ("deliveries", "list"): [*DELIVERY_FILTERS, "--status", "y", "--endpoint", "ep_1", "--after", "a", "--before", "b"],
    ("deliveries", "resend"): [*DELIVERY_FILTERS, "--yes"],
    ("replays", "create"): [
        "ep_1",
        "--status",
        "x",
        "--type",
        "a",
        "--after",
        "a",
        "--before",
        "b",
        "--rate",
        "0",
        "--include-missing",
    ],
    ("stats",): ["--period", "1h", "--since", "a", "--until", "b", "--by", "type"],
    ("attempts", "list"): [*DELIVERY_FILTERS[2:], "--endpoint", "ep_1", "--delivery", "dlv_1", "--after", "a"],
    ("rejected-events", "list"): ["--type", "a.b", "--since", "x", "--until", "y"],
    ("endpoints", "list"): ["--state", "x", "--text", "y", "--cause", "z", "--type", "a"],
    ("endpoints", "create"): ["https://x.example/", "--type", "a.*", "--description", "d", *SETTINGS],
    ("endpoints", "update"): ["ep_1", "--url", "x", "--type", "a.*", "--description", "d", *SETTINGS],
    ("endpoints", "preview-filter"): ['{"a": [1]}', "--type", "a.*", "--limit", "3"],
    ("endpoints", "enable"): ["ep_1", "--held", "x"],
    ("endpoints", "test"): ["ep_1", "--type", "athlete.created"],
}


def test_every_command_is_covered() -> None:
    assert {*SERVERLESS, *COMMANDS_WITHOUT_FIELDS, *COMMANDS_WITH_FIELDS} == set(COMMANDS)


@pytest.fixture
def rejected_fields(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[set[str]]]:
    """Reject all fields of each request, and return the rejected fields by request."""
    sent: list[set[str]] = []

    def respond(request: Request) -> Any:
        fields = {*(request.body or {}), *request.query} - {"limit", "cursor"}
        if fields:
            sent.append(fields)
            errors = [{"field": each, "code": "wrong", "message": f"Not `{each}` = `x`."} for each in sorted(fields)]
            return 422, {"code": "validation_failed", "status": 422, "errors": errors}, {}
        return {"id": request.path.rpartition("/")[2], "data": [], "next_cursor": None}

    with fake_api() as api:
        api.respond = respond  # type: ignore[method-assign]
        monkeypatch.setenv("UPLIFT_API_URL", api.url)
        monkeypatch.setenv("UPLIFT_API_KEY", "sk_1")
        yield sent


@pytest.mark.parametrize("path", COMMANDS_WITH_FIELDS, ids=" ".join)
def test_an_error_names_the_options_of_its_command(path: tuple[str, ...], rejected_fields: list[set[str]]) -> None:
    result = run(*path, *COMMANDS_WITH_FIELDS[path])
    assert result.exit_code == 2, result.stderr
    [fields] = rejected_fields
    cause = next(line for line in result.stderr.splitlines() if line.startswith("Error:"))
    own = {option for parameter in COMMANDS[path].params for option in parameter.opts}
    assert set(re.findall(r"--[a-z-]+", cause)) <= own
    # The description of the session is not an option of `listen`.
    for field in fields - ({"description"} if path == ("listen",) else set()):
        assert f"`{field}`" not in cause
        assert not re.search(rf"(?:Error:|;) {field}\b", cause)
