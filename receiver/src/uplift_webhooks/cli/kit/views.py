"""Prints endpoints, deliveries and test events in `uplift` and `uplift-server`."""

import json
import time
from collections.abc import Sequence
from typing import Any, Final

from uplift_webhooks.cli.kit.calls import Calls, segment
from uplift_webhooks.cli.kit.errors import CliError
from uplift_webhooks.cli.kit.inputs import DELIVERY_OPTIONS
from uplift_webhooks.cli.kit.output import Output
from uplift_webhooks.cli.kit.rejections import options
from uplift_webhooks.cli.kit.tables import Column

LOOK_SECONDS: Final = 0.5
"""Interval at which a command checks whether a test has ended, in seconds."""
TEST_SECONDS_MAX: Final = 60.0
"""Time limit for a test, in seconds: four times the default timeout of an attempt."""
_SHARE_COLUMNS: Final = [Column("endpoint", "ENDPOINT"), Column("count", "DELIVERIES"), Column("reason", "SKIPPED")]
_REPLAY_COLUMNS: Final = [
    Column("endpoint", "ENDPOINT"),
    Column("id", "REPLAY"),
    Column("total", "DELIVERIES"),
    Column("reason", "SKIPPED", dropped=1),
]
_WAITS: Final = {
    "schedule": "the scheduled time of the next attempt",
    "probe": "the next probe of its endpoint, whose circuit breaker is open",
    "order": "an earlier delivery, to keep the order",
    "turn": "earlier deliveries in the queue",
    "worker": "its worker: an attempt is in flight or queued",
    None: "nothing: an attempt is in flight",
}


def endpoint_row(endpoint: dict[str, Any]) -> dict[str, Any]:
    """Return an endpoint as a row of a table."""
    health = endpoint.get("health")
    status = health.get("status") if isinstance(health, dict) else None
    return {**endpoint, "health": status, "event_types": endpoint.get("event_types") or "all"}


def show_endpoint(output: Output, endpoint: dict[str, Any]) -> None:
    """Print an endpoint. The text output ends with the endpoint's health."""
    if output.as_json:
        output.json(endpoint)
        return
    shown = {name: value for name, value in endpoint.items() if name != "health"}
    if endpoint.get("retry_schedule") == []:
        shown["retry_schedule"] = "none"
    pattern = endpoint.get("filter")
    shown["filter"] = None if pattern is None else json.dumps(pattern, ensure_ascii=False)
    output.fields({**shown, "event_types": endpoint.get("event_types") or "all"})
    output.fields({"health": endpoint.get("health")})


def print_replay(output: Output, replay: dict[str, Any]) -> None:
    """Print a replay. The text output shows the field `status` as `delivery_status`, to distinguish it from `state`."""
    if output.as_json:
        output.json(replay)
        return
    output.fields({"delivery_status" if name == "status" else name: value for name, value in replay.items()})


def show_test(output: Output, calls: Calls, test: dict[str, Any], program: str, account: str | None = None) -> None:
    """Wait for a test's attempt, and print the attempt. Raises CliError if the attempt failed."""
    attempt = _attempt(calls, test, program, account)
    output.fields(attempt)
    if attempt["outcome"] != "delivered":
        hint = _with_response(attempt) or f"for details, run `{program} deliveries --endpoint ENDPOINT`"
        raise CliError(f"the test attempt failed: {attempt['outcome']}", hint)


def show_check(output: Output, check: dict[str, Any]) -> None:
    """Print the result of a signature check. Raises CliError if the endpoint is not verified."""
    attempts = {name: check[name] for name in ("wrong_signature", "valid_signature")}
    if not output.as_json:
        check = {**check, **{name: _check_line(attempt) for name, attempt in attempts.items()}}
    output.fields(check)
    if not check["verified"]:
        raise CliError(check["text"].rstrip("."), check["hint"] or "")


def _with_response(attempt: dict[str, Any]) -> str | None:
    """Return an attempt's hint, followed by the first line of the response."""
    hint, response = attempt.get("hint"), attempt.get("response")
    line = response.get("first_line") if isinstance(response, dict) else None
    return f"{hint} Response: {line}" if hint and line else hint


def _check_line(attempt: dict[str, Any] | None) -> str:
    if attempt is None:
        return "no result"
    code = attempt["status_code"]
    shown = attempt["outcome"] if code is None else f"{code}, {'accepted' if 200 <= code < 300 else 'not accepted'}"
    return f"{shown}, {attempt['delivery']}"


def _attempt(calls: Calls, test: dict[str, Any], program: str, account: str | None) -> dict[str, Any]:
    """Wait until a test's attempt ends. Return the attempt. Raises CliError if none ends within TEST_SECONDS_MAX."""
    if "outcome" in test:
        return test
    path = f"/v1/deliveries/{segment(test['id'])}"
    until = time.monotonic() + TEST_SECONDS_MAX
    while calls.get(path, account=account)["status"] == "pending" and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
    for attempt in calls.items(f"{path}/attempts", limit=1, account=account):
        return attempt
    raise CliError("the attempt has no result yet", f"to see the result later, run `{program} deliveries {test['id']}`")


def explain_wait(delivery: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a pending delivery, in which `waiting_for` is a sentence. Return other deliveries unchanged."""
    if delivery["status"] != "pending":
        return delivery
    waiting_for = delivery.get("waiting_for")
    return {**delivery, "waiting_for": _WAITS.get(waiting_for, waiting_for)}


def resend_matching(
    output: Output, calls: Calls, filters: dict[str, Any], account: str | None = None, *, starts: bool
) -> None:
    """Resend the deliveries that match filters, or count them if `starts` is false. Print one row for each endpoint."""
    with options(**DELIVERY_OPTIONS):
        answer = calls.post(
            "/v1/deliveries/resend", filters if starts else {**filters, "dry_run": True}, account=account
        )
    if output.as_json:
        output.json(answer)
        return
    shares = [*answer["replays"], *answer["skipped"]] if starts else answer["endpoints"]
    output.rows(shares, _REPLAY_COLUMNS if starts else _SHARE_COLUMNS, empty="No matching deliveries.")
    if not starts and answer["count"]:
        output.note("To resend the deliveries, repeat the command with --yes.")


def show_delivery(
    output: Output, calls: Calls, delivery: dict[str, Any], columns: Sequence[Column], account: str | None = None
) -> None:
    """Print a delivery with its attempts."""
    attempts = list(calls.items(f"/v1/deliveries/{segment(delivery['id'])}/attempts", limit=1000, account=account))
    if output.as_json:
        output.json({**delivery, "attempts": attempts})
        return
    output.fields(explain_wait(delivery))
    output.line("")
    attempts.sort(key=lambda each: int(each["number"]))
    shown = [{**each, "hint": _with_response(each)} for each in attempts]
    output.rows(shown, columns, empty="No attempts yet.")
