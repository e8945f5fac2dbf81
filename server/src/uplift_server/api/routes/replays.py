"""Replays: jobs that send many deliveries of an endpoint again."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from uplift_server.api.bodies import Nothing, Paging, ReplayNew
from uplift_server.api.reading import Asked, BodyReader, CallerOf, QueryReader, Sent, ServicesOf, key_of
from uplift_server.api.rendering import listed, replay_preview, replay_view
from uplift_server.api.repeats import mark_repeated
from uplift_server.api.views import Listed, ReplayPreview, ReplayView
from uplift_server.core.deliveries.replays import ReplayState
from uplift_server.core.timestamps import parse_timestamp
from uplift_server.service.principals import Caller
from uplift_server.service.replays import ReplayDraft
from uplift_server.service.services import Services

router = APIRouter(tags=["Replays"])
Empty = Annotated[Sent, Depends(BodyReader(Nothing, required=False))]


@router.post(
    "/v1/replays",
    status_code=201,
    summary="Replay deliveries",
    response_model_exclude_unset=True,
    responses={200: {"model": ReplayPreview, "description": "With `dry_run`: what there is to send."}},
)
async def create_replay(
    request: Request,
    response: Response,
    services: ServicesOf,
    caller: CallerOf,
    sent: Annotated[Sent, Depends(BodyReader(ReplayNew))],
) -> ReplayView | ReplayPreview:
    """Scope `deliveries:write`. Sends an endpoint's ended deliveries again, each once, in the order of acceptance.

    With `dry_run` it only counts them. An endpoint has one unfinished replay at a time.
    """
    given = dict(sent.given)
    dry_run = given.pop("dry_run", False)
    for name in ("created_after", "created_before"):
        if given.get(name) is not None:
            given[name] = parse_timestamp(given[name])
    draft = ReplayDraft(**given)
    if dry_run:
        response.status_code = 200
        return replay_preview(await services.replays.preview(caller, draft, problems=sent.problems))
    shown = await services.replays.create(caller, draft, idempotency_key=key_of(request, sent), problems=sent.problems)
    mark_repeated(response, repeated=shown.repeated)
    return replay_view(shown, spans=caller.spans_accounts)


@router.get("/v1/replays", summary="List replays", response_model_exclude_unset=True)
async def list_replays(
    services: ServicesOf, caller: CallerOf, asked: Annotated[Asked, Depends(QueryReader(Paging))]
) -> Listed[ReplayView]:
    """Scope `deliveries:read`; newest first."""
    page = await services.replays.page(caller, asked.values.listing(), problems=asked.problems)
    return listed(page, lambda shown: replay_view(shown, spans=caller.spans_accounts), services.context.cursors)


@router.get("/v1/replays/{replay}", summary="Get a replay", response_model_exclude_unset=True)
async def get_replay(services: ServicesOf, caller: CallerOf, replay: str) -> ReplayView:
    """Scope `deliveries:read`."""
    return replay_view(await services.replays.get(caller, replay), spans=caller.spans_accounts)


@router.post("/v1/replays/{replay}/pause", summary="Pause a replay", response_model_exclude_unset=True)
async def pause_replay(services: ServicesOf, caller: CallerOf, replay: str, sent: Empty) -> ReplayView:
    """Scope `deliveries:write`. What is in flight finishes; everything else waits, as it was, until it is resumed."""
    return await _put_into(services, caller, replay, ReplayState.PAUSED, sent)


@router.post("/v1/replays/{replay}/resume", summary="Resume a replay", response_model_exclude_unset=True)
async def resume_replay(services: ServicesOf, caller: CallerOf, replay: str, sent: Empty) -> ReplayView:
    """Scope `deliveries:write`. It goes on where it was."""
    return await _put_into(services, caller, replay, ReplayState.RUNNING, sent)


@router.post("/v1/replays/{replay}/cancel", summary="Cancel a replay", response_model_exclude_unset=True)
async def cancel_replay(services: ServicesOf, caller: CallerOf, replay: str, sent: Empty) -> ReplayView:
    """Scope `deliveries:write`. What is in flight finishes; nothing more is sent, and the rest stays as it was."""
    return await _put_into(services, caller, replay, ReplayState.CANCELLED, sent)


async def _put_into(services: Services, caller: Caller, replay: str, state: ReplayState, sent: Sent) -> ReplayView:
    shown = await services.replays.set_state(caller, replay, state, problems=sent.problems)
    return replay_view(shown, spans=caller.spans_accounts)
