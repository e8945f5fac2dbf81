"""`uplift stats` and `uplift replays create`."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.cli.fake_api import Request, fake_api
from tests.receiver.cli.test_program import run

COUNTS = {
    "deliveries": 3, "delivered": 2, "failed": 1, "pending": 0, "held": 0, "cancelled": 0, "attempts": 4,
    "first_try_rate": 2 / 3,
}  # fmt: skip
TIMES = {"since": "2026-01-31T00:00:00.000Z", "until": "2026-02-01T00:00:00.000Z"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """A fake API, and the queries and bodies that it receives."""
    found: list[Any] = []

    def respond(request: Request) -> Any:
        if request.path.startswith("/v1/endpoints/"):
            return 200, {"id": request.path.rpartition("/")[2]}, {}
        found.append(request.body if request.method == "POST" else request.query)
        if request.path == "/v1/replays":
            return 201, {"id": "rpl_1", "state": "running"}, {}
        if request.query.get("by") in {"type", "endpoint"}:
            name = request.query["by"]
            number = int(request.query.get("cursor", 0)) + 1
            page = {
                "groups": [{name: f"{name}.{number}", **COUNTS}],
                "next_cursor": str(number) if number < 3 else None,
            }
            return 200, {**TIMES, "period": None, "totals": COUNTS, "buckets": [], "failures": {}, **page}, {}
        buckets = [{"at": TIMES["since"], **COUNTS}, {"at": TIMES["until"], **COUNTS, "first_try_rate": None}]
        return 200, {**TIMES, "period": "24h", "totals": COUNTS, "buckets": buckets, "failures": {"timeout": 2}}, {}

    with fake_api() as api:
        api.respond = respond  # type: ignore[method-assign]
        monkeypatch.setenv("UPLIFT_API_URL", api.url)
        monkeypatch.setenv("UPLIFT_API_KEY", "sk_1")
        yield found


def test_the_totals_end_with_the_failures(asked: list[Any]) -> None:
    lines = [line.split() for line in run("stats", "--period", "7d").stdout.splitlines()]
    assert ["delivered", "2"] in lines
    assert ["first_try_rate", "66.7%"] in lines
    assert lines[-2:] == [["failures"], ["timeout", "2"]]
    assert asked == [{"period": "7d"}]
    assert json.loads(run("stats", "--json").stdout)["failures"] == {"timeout": 2}


def test_a_range_is_listed_by_hour(asked: list[Any]) -> None:
    shown = run("stats", "--by", "hour", "--since", "2026-01-31", "--until", "2026-02-01").stdout
    assert shown.splitlines()[0].startswith("HOUR\tDELIVERIES\tDELIVERED")
    assert [line.split("\t")[-1] for line in shown.splitlines()[1:]] == ["66.7%", "-"]
    assert asked == [{"by": "hour", "since": "2026-01-31", "until": "2026-02-01"}]


@pytest.mark.parametrize(("limit", "names"), [("2", ["type.1", "type.2"]), ("9", ["type.1", "type.2", "type.3"])])
def test_groups_are_read_from_all_pages(asked: list[Any], limit: str, names: list[str]) -> None:
    listed = run("stats", "--by", "type", "--limit", limit, "--json").stdout
    assert [json.loads(line)["type"] for line in listed.splitlines()] == names
    assert [each.get("cursor") for each in asked] == [None, "1", "2"][: len(names)]
    assert "TYPE" in run("stats", "--by", "type").stdout


def test_a_replay_can_include_missing_events(asked: list[Any]) -> None:
    created = run("replays", "create", "ep_1", "--include-missing", "--after", "2026-01-31", "--rate", "20")
    assert "uplift replays show rpl_1" in created.stderr
    counted = run("replays", "create", "ep_1", "--only-missing", "--dry-run")
    assert counted.stderr == ""
    assert asked == [
        {"endpoint": "ep_1", "include_missing": True, "created_after": "2026-01-31", "rate_per_second": 20},
        {"endpoint": "ep_1", "status": [], "include_missing": True, "dry_run": True},
    ]
    contradictory = run("replays", "create", "ep_1", "--only-missing", "--status", "failed")
    assert (contradictory.exit_code, len(asked)) == (2, 2)
