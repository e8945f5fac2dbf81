"""Fleet: backlog, throughput, latency and problems of the whole server."""

from collections.abc import Mapping
from typing import Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.core.operations.statistics import HOUR_MS, Series
from uplift_server.dashboard import words
from uplift_server.dashboard.figures import (
    PERIODS,
    attempt_columns,
    failure_counts,
    latency_lines,
    period_of,
)
from uplift_server.dashboard.pages.operator.volumes import volume
from uplift_server.dashboard.routes import operator_page
from uplift_server.dashboard.visit import Visit
from uplift_server.dashboard.words import REPLAY_WAITS
from uplift_server.service.operator_overview import COUNTED_MAX, OverviewState
from uplift_server.service.replays import ShownReplay
from uplift_server.store.processes import Process

STATES: Final = ("healthy", "failing", "warned", "unknown", "paused", "disabled")
_NO_WORKER: Final = {
    False: "The server is not sending deliveries: no worker is running. Start a process with --role worker or"
    " --role all.",
    True: "The server is not sending deliveries: all workers are starting or stopping.",
}
"""The problem if no worker can send deliveries, by whether the role of this process includes deliveries."""
LATE_MS: Final = 60_000
"""A delivery that has been due for longer is late."""


async def fleet(visit: Visit) -> Response:
    """Show the page."""
    period = period_of(visit.query.text("period"))
    services, caller = visit.services, visit.caller
    state = await services.operator_overview.state(caller)
    series = await services.statistics.of_all_accounts(caller, period)
    now = services.context.now()
    late_ms = 0 if state.oldest_due_at is None else now - state.oldest_due_at
    return visit.render(
        "operator/fleet.html",
        now=now,
        state=state,
        late=late_ms > LATE_MS,
        counted_max=COUNTED_MAX,
        states=[(name, state.endpoints[name]) for name in STATES if state.endpoints.get(name)],
        verdict=_verdict(state, late_ms),
        period=period,
        periods=PERIODS,
        series=series,
        totals=series.totals,
        pace=_pace(series),
        volume=volume(series),
        attempts=attempt_columns(series),
        failures=failure_counts(series.totals),
        latency=latency_lines(series),
        replays=[_replay(visit, each) for each in state.replays],
        processes=[_process(each) for each in state.processes or ()],
    )


def _verdict(state: OverviewState, late_ms: int) -> tuple[str, str]:
    """Return the health of the fleet: a CSS class and a sentence."""
    if (stopped := _stopped(state)) is not None:
        return stopped
    if state.mass_failure is not None:
        return "failing", "Mass failure: many endpoints began to fail at once. Check the network of this server."
    if late_ms > LATE_MS:
        return "failing", "Deliveries are late. The server is overloaded, or an endpoint reached its limit."
    failing = state.endpoints.get("failing", 0) + state.endpoints.get("warned", 0)
    if failing:
        those = "endpoint is" if failing == 1 else "endpoints are"
        return "healthy", f"Deliveries are on time. {words.count(failing)} {those} failing."
    return "healthy", "Deliveries are on time. No endpoints are failing."


def _stopped(state: OverviewState) -> tuple[str, str] | None:
    """Return the health if the server is not sending deliveries, or if this process does not know."""
    if state.heartbeat_overdue_ms is not None:
        since = words.count(state.heartbeat_overdue_ms // 1000)
        return (
            "failing",
            f"The heartbeat of this process is {since} s old. This page may be outdated. Check the database.",
        )
    if state.processes and not any(each.delivers for each in state.processes):
        return "disabled", _NO_WORKER[any(each.role.delivers for each in state.processes)]
    if state.load.stopped:
        text = "The server is not sending deliveries: it cannot store the outcomes of attempts."
        return "disabled", f"{text} Check the disk and the log."
    return None


def _pace(series: Series) -> str:
    """Return the average rate of attempts."""
    hours = len(series.buckets) * series.bucket_ms / HOUR_MS
    for unit, share in (("per second", 3600), ("per minute", 60)):
        rate = series.totals.attempts / hours / share
        if rate >= 1:
            return f"{rate:,.0f} {unit}"
    return f"{series.totals.attempts / hours:,.1f} per hour"


def _replay(visit: Visit, shown: ShownReplay) -> Mapping[str, object]:
    replay = shown.replay
    account = ids.prefixed(ids.ACCOUNT, replay.account_id)
    replay_id = ids.prefixed(ids.REPLAY, replay.id)
    known = visit.services.context.cache.accounts.get(replay.account_seq)
    return {
        "id": replay_id,
        "href": f"/accounts/{account}/replays/{replay_id}",
        "account": account if known is None else known.name,
        "state": replay.state.text,
        "reason": None if shown.reason is None else REPLAY_WAITS[shown.reason],
        "done": replay.delivered + replay.failed + replay.skipped,
        "total": replay.total,
        "rate": replay.rate_per_second,
    }


def _process(process: Process) -> Mapping[str, object]:
    delivers = process.role.delivers
    return {
        # The host name has a suffix after # that only identifies the machine.
        "place": f"{process.host.partition('#')[0]}, process {process.pid}",
        "role": process.role,
        "version": process.version,
        "started_at": process.started_at,
        "delivers": delivers,
        "idle": delivers and not process.delivers,
        "in_flight": process.in_flight,
        "in_flight_max": process.in_flight_max,
        "waiting": process.waiting,
    }


PAGES: Final = (operator_page("", fleet),)
