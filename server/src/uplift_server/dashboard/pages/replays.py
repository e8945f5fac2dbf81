"""Pages that list, preview, start, pause, resume and cancel replays."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.core.deliveries.replays import STATUSES_DEFAULT, ReplayState
from uplift_server.core.limits import REPLAY_RATE_PER_SECOND_DEFAULT, REPLAY_RATE_PER_SECOND_MAX
from uplift_server.core.problems import Problem
from uplift_server.core.security.scopes import Scope
from uplift_server.core.timestamps import format_optional_timestamp
from uplift_server.dashboard import words
from uplift_server.dashboard.forms import Form, key_of
from uplift_server.dashboard.routes import account_form, account_page
from uplift_server.dashboard.visit import Visit
from uplift_server.service.errors import Conflict, Invalid
from uplift_server.service.replays import Preview, ReplayDraft, ShownReplay

_NEW: Final = "replays/new.html"
_SEPARATORS: Final = re.compile(r"[\s,]+")
_DONE: Final = {
    ReplayState.PAUSED: "Replay paused. The server finishes attempts in flight.",
    ReplayState.RUNNING: "Replay resumed.",
    ReplayState.CANCELLED: "Replay cancelled. The server finishes attempts in flight.",
}


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a replay."""

    sent: int
    left: int | None
    """The number of deliveries that the replay has not sent yet, or None while the server counts them."""
    rate: float
    """The average number of deliveries per second since the replay was created, including pauses."""
    seconds_left: float | None
    """The remaining time at the maximum rate, in seconds, or None while the replay is not sending deliveries."""


async def listed(visit: Visit) -> Response:
    """List the replays of the account, newest first."""
    page = await visit.services.replays.page(visit.caller, visit.listing())
    return visit.render(
        "replays/list.html",
        replays=[(each, _progress(visit, each)) for each in page.items],
        next=visit.cursor(page.next_key),
        endpoints={each.id: each for each in visit.services.endpoints.all(visit.caller)},
        may_write=visit.caller.principal.allows(Scope.DELIVERIES_WRITE),
    )


async def new(visit: Visit) -> Response:
    """Show the form that starts a replay. If the URL has the parameter `plan`, also show the preview."""
    visit.caller.require(Scope.DELIVERIES_WRITE)
    if not visit.query.flag("plan"):
        draft, problems = _read(visit.query, status_default=True)
        return _form(visit, draft, problems)
    draft, problems = _read(visit.query)
    try:
        preview = await visit.services.replays.preview(visit.caller, draft, problems=problems)
    except Invalid as error:
        return _form(visit, draft, error.problems)
    return _plan(visit, draft, preview)


async def start(visit: Visit) -> Response:
    """Start a replay."""
    sent = await visit.form()
    draft, problems = _read(sent)
    try:
        shown = await visit.services.replays.create(
            visit.caller, draft, idempotency_key=key_of(sent), problems=problems
        )
    except Invalid as error:
        return _form(visit, draft, error.problems)
    except Conflict as error:
        return visit.render(_NEW, 409, refusal=error.detail, **_context(visit, draft))
    return visit.leave(visit.path("replays", ids.prefixed(ids.REPLAY, shown.replay.id)), "Replay started.")


async def shown(visit: Visit) -> Response:
    """Show one replay with its progress."""
    found = await visit.services.replays.get(visit.caller, visit.parameter("replay"))
    by_id = {each.id: each for each in visit.services.endpoints.all(visit.caller)}
    return visit.render(
        "replays/replay.html",
        replay=found.replay,
        reason=None if found.reason is None else words.REPLAY_WAITS[found.reason],
        progress=_progress(visit, found),
        endpoint=by_id.get(found.replay.endpoint_id),
        may_write=visit.caller.principal.allows(Scope.DELIVERIES_WRITE),
    )


async def pause(visit: Visit) -> Response:
    """Pause a replay."""
    return await _put_into(visit, ReplayState.PAUSED)


async def resume(visit: Visit) -> Response:
    """Resume a replay."""
    return await _put_into(visit, ReplayState.RUNNING)


async def cancel(visit: Visit) -> Response:
    """Cancel a replay."""
    return await _put_into(visit, ReplayState.CANCELLED)


async def _put_into(visit: Visit, state: ReplayState) -> Response:
    replay = visit.parameter("replay")
    await visit.services.replays.set_state(visit.caller, replay, state)
    return visit.leave(visit.path("replays", replay), _DONE[state])


def _progress(visit: Visit, shown: ShownReplay) -> Progress:
    replay = shown.replay
    sent = replay.delivered + replay.failed
    left = max(0, replay.total - sent - replay.skipped) if replay.is_counted else None
    until = replay.completed_at or visit.services.context.now()
    rate = sent * 1000 / max(1, until - replay.created_at)
    sends = replay.state is ReplayState.RUNNING and shown.reason is None
    if left is None or not sends:
        return Progress(sent, left, rate, None)
    return Progress(sent, left, rate, left / replay.rate_per_second)


def _read(sent: Form, *, status_default: bool = False) -> tuple[ReplayDraft, list[Problem]]:
    problems: list[Problem] = []
    rate = sent.number("rate_per_second", problems)
    if rate is not None and not 1 <= rate <= REPLAY_RATE_PER_SECOND_MAX:
        text = f"Enter a rate from 1 to {REPLAY_RATE_PER_SECOND_MAX} per second."
        problems.append(Problem("rate_per_second", "out_of_range", text))
    statuses = sent.texts("status")
    if status_default and not statuses:
        statuses = [status.text for status in STATUSES_DEFAULT]
    draft = ReplayDraft(
        endpoint=sent.optional("endpoint"),
        status=statuses,
        types=[name for text in sent.texts("types") for name in _SEPARATORS.split(text) if name],
        created_after=sent.instant("created_after", problems),
        created_before=sent.instant("created_before", problems),
        rate_per_second=rate,
        include_missing=sent.flag("include_missing"),
    )
    return draft, problems


def _form(visit: Visit, draft: ReplayDraft, problems: Sequence[Problem]) -> Response:
    context = _context(visit, draft)
    return visit.refuse(_NEW, problems, **context) if problems else visit.render(_NEW, **context)


def _plan(visit: Visit, draft: ReplayDraft, preview: Preview) -> Response:
    rate = draft.rate_per_second or REPLAY_RATE_PER_SECOND_DEFAULT
    return visit.render(_NEW, **_context(visit, draft, preview), seconds=preview.count / rate, rate=rate)


def _context(visit: Visit, draft: ReplayDraft, preview: Preview | None = None) -> dict[str, Any]:
    endpoints = visit.services.endpoints.all(visit.caller)
    chosen = [each for each in endpoints if ids.prefixed(ids.ENDPOINT, each.id) == draft.endpoint]
    return {
        "draft": draft,
        "preview": preview,
        "endpoints": endpoints,
        "endpoint": chosen[0] if chosen else None,
        "rate_default": REPLAY_RATE_PER_SECOND_DEFAULT,
        "rate_max": REPLAY_RATE_PER_SECOND_MAX,
        "body": json.dumps(_body(draft), ensure_ascii=False),
        "command": _command(draft),
    }


def _body(draft: ReplayDraft) -> dict[str, object]:
    """Return the body of the API request that creates this replay.

    Omit empty fields, but keep an empty `status` if `include_missing` is set.
    """
    given = {
        "endpoint": draft.endpoint,
        "status": list(draft.status or ()),
        "types": list(draft.types or ()),
        "created_after": format_optional_timestamp(draft.created_after),
        "created_before": format_optional_timestamp(draft.created_before),
        "rate_per_second": draft.rate_per_second,
        "include_missing": draft.include_missing,
    }
    return {name: value for name, value in given.items() if value or (name == "status" and draft.include_missing)}


def _command(draft: ReplayDraft) -> str:
    """Return the `uplift-server` command that creates this replay."""
    told: Mapping[str, Sequence[object]] = {
        "--status": list(draft.status or ()),
        "--type": list(draft.types or ()),
        "--after": [format_optional_timestamp(draft.created_after)],
        "--before": [format_optional_timestamp(draft.created_before)],
        "--rate": [draft.rate_per_second],
    }
    options = [text for name, values in told.items() for value in values if value for text in (name, str(value))]
    if draft.include_missing:
        options.append("--include-missing" if draft.status else "--only-missing")
    return shlex.join(["uplift-server", "replays", "create", draft.endpoint or "ENDPOINT", *options])


PAGES: Final = (
    account_page("/replays", listed),
    account_form("/replays", start),
    account_page("/replays/new", new),
    account_page("/replays/{replay}", shown),
    account_form("/replays/{replay}/pause", pause, back="/replays/{replay}"),
    account_form("/replays/{replay}/resume", resume, back="/replays/{replay}"),
    account_form("/replays/{replay}/cancel", cancel, back="/replays/{replay}"),
)
