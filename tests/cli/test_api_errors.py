"""API errors name the options of the command, with their units."""

import re
from typing import Any

import pytest
from tests.cli.commands import run
from tests.cli.fake_api import FakeApi, Request
from tests.cli.test_program import COMMANDS

from uplift_server.core.durations import format_duration
from uplift_webhooks.cli.kit.calls import CallRejected
from uplift_webhooks.cli.kit.errors import ExitCode
from uplift_webhooks.cli.kit.rejections import Converted, options

COMMANDS_WITHOUT_REQUESTS = {
    ("serve",), ("demo",), ("migrate",), ("backup",), ("doctor",), ("config",), ("secret-key", "rotate"),
    ("mail", "test"), ("outbox",),
}  # fmt: skip
"""Commands without API requests."""
COMMANDS_WITHOUT_FIELDS = {
    ("accounts", "list"), ("accounts", "show"), ("keys", "list"), ("endpoints", "list"), ("endpoints", "show"),
    ("event-types", "list"), ("event-types", "show"), ("events", "show"), ("deliveries", "show"), ("attempts", "show"),
    ("replays", "list"), ("replays", "show"),
    ("replays", "pause"), ("replays", "resume"), ("replays", "cancel"), ("accounts", "delete"), ("keys", "revoke"),
    ("portal-links", "list"), ("portal-links", "revoke"),
    ("endpoints", "pause"), ("endpoints", "disable"), ("endpoints", "delete"), ("endpoints", "verify"),
    ("endpoints", "secret", "show"), ("endpoints", "secret", "expire-old"), ("deliveries", "resend"),
    ("deliveries", "cancel"), ("members", "list"),
    ("members", "invitations"), ("members", "withdraw"), ("members", "remove"), ("members", "reset-password"),
    ("members", "reset-second-factor"),
    ("retention", "resume"), ("fleet",), ("erasures", "list"), ("erasures", "show"),
    ("rejected-events", "show"),
}  # fmt: skip
"""Commands whose requests have no fields."""
COMMANDS_WITH_FIELDS = {
    ("members", "invite"): ["a@b.example", "--role", "boss", "--account", "acc_0a11"],
    ("members", "role"): ["mem_0f11", "--role", "boss", "--account", "acc_0a11"],
    ("sign-in-links", "create"): ["--account", "acc_0a11", "--email", "a", "--role", "boss"],
    ("accounts", "create"): ["Rapids", "--email", "a@b.example", "--uid", "a/b", "--metadata", "plan=pro"],
    ("keys", "create"): ["--account", "acc_0a11", "--name", "n", "--scopes", "listen", "--expires-at", "x"],
    ("keys", "update"): ["key_0b11", "--account", "acc_0a11", "--name", "n", "--expires-at", "x"],
    ("endpoints", "create"): ["https://x.example/", "--account", "acc_0a11", "--type", "a.*", "--description", "d",
                             "--max-in-flight", "0", "--uid", "a/b", "--metadata", "plan=pro"],
    ("endpoints", "update"): ["ep_0e11", "--url", "x", "--type", "a.*", "--description", "d", "--max-in-flight", "0"],
    ("endpoints", "preview-filter"): ["{}", "--account", "acc_0a11", "--type", "a.*"],
    ("endpoints", "enable"): ["ep_0e11", "--held", "keep"],
    ("endpoints", "test"): ["ep_0e11", "--type", "athlete.created"],
    ("endpoints", "secret", "rotate"): ["ep_0e11", "--overlap", "8d", "--uplift-header", "new", "--secret-file", "-"],
    ("accounts", "update"): ["acc_0a11", "--name", "n", "--email", "a", "--uid", "a/b", "--metadata", "plan=pro"],
    ("events", "send"): ["athlete.created", "--account", "acc_0a11"],
    ("events", "list"): ["--type", "athlete.created", "--object-id", "x", "--after", "x", "--before", "y", "--no-test"],
    ("deliveries", "list"): ["--status", "failed", "--endpoint", "ep_0e11", "--type", "athlete.created"],
    ("attempts", "list"): ["--endpoint", "ep_0e11", "--delivery", "dlv_0d11", "--outcome", "x", "--status-code", "1"],
    ("rejected-events", "list"): ["--type", "a.b", "--since", "x", "--until", "y"],
    ("events", "explain"): ["e1", "--endpoint", "ep_" + "0" * 32],
    ("audit-log",): ["--actor", "key", "--action", "key.created", "--after", "x", "--before", "y"],
    ("replays", "create"): ["ep_0e11", "--status", "failed", "--type", "a.*", "--after", "x", "--before", "y",
                           "--rate", "0", "--include-missing", "--dry-run"],
    ("erasures", "create"): ["--account", "acc_0a11", "--object-id", "x"],
}  # fmt: skip


def test_every_command_is_covered() -> None:
    assert {*COMMANDS_WITHOUT_REQUESTS, *COMMANDS_WITHOUT_FIELDS, *COMMANDS_WITH_FIELDS} == set(COMMANDS)


@pytest.fixture
def rejected_fields(api: FakeApi) -> list[set[str]]:
    """Reject every request for all of its fields; return the fields of each request."""
    sent: list[set[str]] = []
    respond_normally = api.respond

    def respond(request: Request) -> Any:
        fields = {*(request.body or {}), *request.query} - {"limit", "cursor"}
        if not fields:
            return respond_normally(request)
        sent.append(fields)
        errors = [{"field": each, "code": "wrong", "message": f"Not `{each}` = `x`."} for each in sorted(fields)]
        return 422, {"code": "validation_failed", "errors": errors}, {}

    api.respond = respond  # type: ignore[method-assign]
    return sent


@pytest.mark.parametrize("path", COMMANDS_WITH_FIELDS, ids=" ".join)
def test_an_error_names_the_options_of_its_command(path: tuple[str, ...], rejected_fields: list[set[str]]) -> None:
    result = run(*path, *COMMANDS_WITH_FIELDS[path], stdin="whsec_a")
    assert result.exit_code == 2, result.stderr
    [fields] = rejected_fields
    cause = result.stderr.splitlines()[0]
    own = {option for parameter in COMMANDS[path].params for option in parameter.opts}
    assert set(re.findall(r"--[a-z-]+", result.stderr)) <= own
    for field in fields - {"dry_run"}:
        assert f"`{field}`" not in result.stderr
        assert not re.search(rf"(?:Error:|;) {field}\b", cause)
        assert not ("_" in field and field in result.stderr)


@pytest.mark.parametrize("path", sorted(COMMANDS_WITHOUT_FIELDS), ids=" ".join)
def test_a_command_without_fields_sends_none(
    path: tuple[str, ...], api: FakeApi, rejected_fields: list[set[str]]
) -> None:
    arguments = {"accounts": ["acc_0a11"], "keys": ["key_0b11"], "portal-links": ["lnk_0b11"], "members": ["mem_0f11"],
                 "endpoints": ["ep_0e11"], "event-types": ["athlete.created"], "events": ["e1"],
                 "deliveries": ["dlv_0d11"], "attempts": ["att_0b11"], "replays": ["rpl_0c11"],
                 "erasures": ["ers_0b11"], "rejected-events": ["rej_0b11"]}.get(path[0], [])  # fmt: skip
    if path[-1] in {"list", "invitations"}:
        arguments = []
    if path[-1] == "withdraw":
        arguments = ["inv_0f11"]
    if path[0] in {"keys", "portal-links", "members", "erasures"}:
        arguments = [*arguments, "--account", "acc_0a11"]
    run(*path, *arguments, *(["--yes"] if path == ("accounts", "delete") else []))
    assert api.requests
    assert rejected_fields == []


def rejection(field: str, message: str, **names: Any) -> CallRejected:
    with pytest.raises(CallRejected) as caught, options(**names):
        raise CallRejected("c", "r", ExitCode.USAGE, 422, {field: "wrong"}, [(field, message)])
    return caught.value


def test_errors_show_durations_with_units() -> None:
    overlap = Converted("--overlap", lambda number: format_duration(number * 1000))
    found = rejection(
        "overlap_seconds",
        "The number is too large. The maximum is 604800.",
        overlap_seconds=overlap,
    )
    assert (found.cause, found.remedy) == (
        "--overlap: The number is too large. The maximum is 7d.",
        "correct --overlap",
    )


def test_an_error_names_nested_fields_and_options_of_lists() -> None:
    assert rejection("data.object.id", "No.", data="the data").cause == "the data at object.id: No."
    assert rejection("event_types.3", "No.", event_types="--type").cause == "--type: No."
    assert rejection("cursor", "No.", url="the URL").cause == "cursor: No."


def test_an_error_without_fields_names_options() -> None:
    with pytest.raises(CallRejected) as caught, options(held="--held"):
        raise CallRejected("With `held` = `keep`; `state` = `paused`. See `held`.", "r", ExitCode.FAILED, 409, {})
    assert caught.value.cause == "With --held keep; `state` = `paused`. See --held."
    assert caught.value.remedy == "r"
