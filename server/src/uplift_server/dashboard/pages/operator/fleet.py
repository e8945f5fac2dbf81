"""The fleet: what there is to do, how fast it is done, and what is out of the ordinary."""

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
    False: "Nothing is sent now: no worker runs. Start a process with --role worker or all.",
    True: "Nothing is sent now: whoever delivers has just started, or is about to stop.",
}
"""By whether there is any process that is to deliver."""
LATE_MS: Final = 60_000
"""What is due for longer for an endpoint that answers is late."""


async def fleet(visit: Visit) -> Response:
    """The page."""
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
    """How the fleet fares: a class for its colour, and one sentence."""
    if (stopped := _stopped(state)) is not None:
        return stopped
    if state.mass_failure is not None:
        return "failing", "Many endpoints fail at once: it is hardly their fault."
    if late_ms > LATE_MS:
        return "failing", "Deliveries that are due wait: the server cannot keep up, or one endpoint is at its limit."
    failing = state.endpoints.get("failing", 0) + state.endpoints.get("warned", 0)
    if failing:
        those = "endpoint fails, and is" if failing == 1 else "endpoints fail, and are"
        return "healthy", f"The server keeps up. {words.count(failing)} {those} tried again by the schedule."
    return "healthy", "The server keeps up, and no endpoint fails."


def _stopped(state: OverviewState) -> tuple[str, str] | None:
    """The same where nothing is sent, or nobody here knows whether."""
    if state.heartbeat_overdue_ms is not None:
        since = words.count(state.heartbeat_overdue_ms // 1000)
        return "failing", f"The database has not heard of this process for {since} s: of the others it knows nothing."
    if state.processes and not any(each.delivers for each in state.processes):
        return "disabled", _NO_WORKER[any(each.role.delivers for each in state.processes)]
    if state.load.stopped:
        return "disabled", "Nothing is sent now: what attempts decided cannot be written. Look at disk and log."
    return None


def _pace(series: Series) -> str:
    """How many attempts were made in a time, over all of it."""
    hours = len(series.buckets) * series.bucket_ms / HOUR_MS
    for unit, share in (("a second", 3600), ("a minute", 60)):
        rate = series.totals.attempts / hours / share
        if rate >= 1:
            return f"{rate:,.0f} {unit}"
    return f"{series.totals.attempts / hours:,.1f} an hour"


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
        # Beyond its name a machine is told from others by what nobody need read.
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
