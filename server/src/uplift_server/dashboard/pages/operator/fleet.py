"""Fleet: problems, backlog, throughput and latency of the whole server."""

from collections.abc import Mapping
from typing import Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.core.operations.fleet import LIMITED_NAMED_MAX
from uplift_server.core.operations.statistics import HOUR_MS, Period, Series
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
from uplift_server.service.replays import ShownReplay
from uplift_server.store.processes import Process

STATES: Final = ("healthy", "failing", "warned", "unknown", "paused", "disabled")
CAUSES_SHOWN: Final = 8
OUTDATED_MS: Final = 10_000
"""If the statistics are older than this time, in ms, the page shows their age."""


async def fleet(visit: Visit) -> Response:
    """Show the fleet page."""
    services, caller = visit.services, visit.caller
    state = await services.operator_overview.state(caller)
    asked = visit.query.text("period")
    period = period_of(asked) if asked or not state.problems else Period.LAST_HOUR
    series = await services.statistics.of_all_accounts(caller, period)
    now = services.context.now()
    age_ms = None if state.read_at is None else now - state.read_at
    return visit.render(
        "operator/fleet.html",
        now=now,
        state=state,
        fleet=state.fleet,
        causes=state.fleet.causes[:CAUSES_SHOWN],
        more_causes=len(state.fleet.causes[CAUSES_SHOWN:]),
        limited=state.fleet.limited[:LIMITED_NAMED_MAX],
        age_ms=age_ms if age_ms is not None and age_ms > OUTDATED_MS else None,
        states=[(name, state.endpoints[name]) for name in STATES if state.endpoints.get(name)],
        period=period,
        periods=PERIODS,
        series=series,
        totals=series.totals,
        failed=sum(series.totals.failures.values()),
        pace=_pace(series),
        volume=volume(series),
        attempts=attempt_columns(series),
        failures=failure_counts(series.totals),
        latency=latency_lines(series),
        replays=[_replay(visit, each) for each in state.replays],
        processes=[_process(each) for each in state.processes or ()],
    )


def _pace(series: Series) -> str:
    """Return the average rate of attempts as text."""
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
        # Omit the digest after #, which distinguishes machines and containers that have the same host name.
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
