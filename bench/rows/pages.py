"""Time to the first byte of all dashboard pages that an operator can see, with a month of history."""

import json
import statistics
import time
from typing import Any, Final

from bench.history import write_history
from bench.options import Options
from bench.progress import bar
from bench.report import Figure, Report, at_most
from bench.row import Row
from bench.scene import Scene, conditions
from bench.server import Server
from bench.visitor import Visitor
from uplift_server.dashboard.app import PAGES
from uplift_server.dashboard.routes import Door

_EVENTS: Final = 5_000_000
_ACCOUNTS: Final = 2
_ENDPOINTS: Final = 1_000
"""The number of endpoints of each account, which is the maximum."""
_VISITS: Final = 5
_COUNTED_WITHIN_S: Final = 900.0
_LOOK_S: Final = 0.2
_NOT_AT_ONCE: Final = ("/live", "/checks")
"""Ends of paths that the row omits, because pages load them later: live streams and checks of other machines."""
_FILTERS: Final = (
    "status=failed",
    "status=pending",
    "outcome=tls_error",
    "status_code=404",
    "status=delivered&status_code=299",
    "object_id=no_such_object",
)
"""Filters for the list of deliveries. Some match many deliveries, and some match none."""
_DOORS: Final = frozenset({Door.ACCOUNT, Door.OPERATOR})
"""The access levels of the pages that the row visits as an operator."""


def _measure(row: Row, options: Options) -> Report:
    events, endpoints = (2_000, 20) if options.smoke else (_EVENTS, _ENDPOINTS)
    with Scene(options) as scene:
        server = scene.server
        server.start()
        accounts = [_account(server, scene.receiver.url(f"ok/{number}"), endpoints) for number in range(_ACCOUNTS)]
        server.stop()
        write_history(server.database, events)
        server.start()
        counted_s = wait_counted(server, events)
        paths = page_paths(ids_of(server, accounts[0]))
        visitor = Visitor(server)
        log_began = server.log.stat().st_size
        times = visit(visitor, paths)
        visitor.close()
        slow_reads = long_reads(server, log_began)
        size_gib = server.database.stat().st_size / 2**30
        notes = scene.trouble()
    slowest = sorted(times, key=lambda path: times[path], reverse=True)
    return Report(
        row.name,
        row.title,
        [
            at_most("first byte of the slowest page", times[slowest[0]], "ms", 150),
            Figure("first byte of the median page", statistics.median(times.values()), "ms"),
            Figure("pages", len(times)),
            at_most("database reads of 100 ms or more", len(slow_reads), "", 0),
            Figure("time until the statistics are complete", counted_s, "s"),
            Figure("database", size_gib, "GiB"),
        ],
        conditions(
            options, history=f"{events:,} events, {2 * events:,} attempts in one month", visits=f"median of {_VISITS}"
        )
        | {"endpoints": f"{_ACCOUNTS * endpoints:,} in {_ACCOUNTS} accounts"},
        {},
        {},
        [
            f"Slowest pages: {', '.join(f'{path} {times[path]:.0f} ms' for path in slowest[:5])}",
            *(f"{read['read']} took {read['duration_ms']} ms" for read in slow_reads),
            *notes,
        ],
    )


def _account(server: Server, url: str, endpoints: int) -> str:
    account: str = server.call("POST", "/v1/accounts", {"name": "A club", "contact_emails": []})["id"]
    for number in range(endpoints):
        server.call("POST", "/v1/endpoints", {"url": f"{url}?n={number}"}, account)
    return account


def wait_counted(server: Server, events: int) -> float:
    """Wait until the statistics contain this many deliveries. Return the elapsed seconds."""
    began = time.monotonic()
    with bar("waiting for statistics", events) as step:
        while time.monotonic() < began + _COUNTED_WITHIN_S:
            counted = server.call("GET", "/v1/stats?period=30d")["totals"]["deliveries"]
            step(counted)
            if counted >= events:
                break
            time.sleep(_LOOK_S)
    return time.monotonic() - began


def ids_of(server: Server, account: str) -> dict[str, str]:
    """Create a replay, and return one ID of each kind of object that has pages."""

    def newest(path: str) -> dict[str, Any]:
        found: dict[str, Any] = server.call("GET", path, None, account)["data"][0]
        return found

    delivery = newest("/v1/deliveries?status=failed")
    replay = server.call("POST", "/v1/replays", {"endpoint": delivery["endpoint"], "rate_per_second": 1}, account)
    return {
        "account": account,
        "endpoint": delivery["endpoint"],
        "delivery": delivery["id"],
        "event": delivery["event"],
        "replay": replay["id"],
        "type": delivery["type"],
        "name": delivery["type"],
    }


def page_paths(ids: dict[str, str]) -> list[str]:
    """Return the path of every page, and more paths with the longest period, filters, searches and traces."""
    found = []
    for page in PAGES:
        if page.method == "GET" and page.door in _DOORS and not page.path.endswith(_NOT_AT_ONCE):
            path = page.path
            for name, value in ids.items():
                path = path.replace(f"{{{name}}}", value)
            found.append(path)
            if path.endswith(("/overview", f"/endpoints/{ids['endpoint']}", "/operator")):
                found.append(f"{path}?period=30d")
            if path.endswith("/deliveries"):
                found.extend(f"{path}?{each}" for each in _FILTERS)
            if path.endswith("/search"):
                texts = (ids["event"], ids["event"][:20], ids["delivery"], "no_such_object", "127.0.0.1")
                found.extend(f"{path}?q={each}" for each in texts)
            if path == "/operator/trace":
                found.extend(
                    f"{path}?id={ids[name]}" for name in ("event", "delivery", "endpoint", "account", "replay")
                )
    return [path for path in found if "{" not in path]


def visit(visitor: Visitor, paths: list[str]) -> dict[str, float]:
    """Return the time to the first byte of each page in ms."""
    for path in paths:
        # The first visit to a page compiles its templates.
        visitor.load(path)
    return {path: statistics.median(visitor.load(path)[0] for _ in range(_VISITS)) for path in paths}


def long_reads(server: Server, since: int) -> list[dict[str, Any]]:
    """Return the log lines of slow reads after a position, without reads of the statistics job."""
    return [read for read in log_lines(server, since, "slow read") if not read["read"].startswith("delivery.")]


def log_lines(server: Server, since: int, message: str) -> list[dict[str, Any]]:
    """Return the log lines with a message after a position."""
    lines = server.log.read_bytes()[since:].decode().splitlines()
    return [json.loads(line) for line in lines if f'"{message}"' in line]


ROW: Final = Row("pages", "response time of dashboard pages with 5,000,000 events", _measure, 600)
