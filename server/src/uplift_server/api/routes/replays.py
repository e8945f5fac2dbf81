"""Routes for replays, which resend many of an endpoint's deliveries."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from uplift_server.api.bodies import Nothing
from uplift_server.api.object_headers import send_location
from uplift_server.api.queries import Paging
from uplift_server.api.reading import BodyReader, CallerOf, ParsedQuery, QueryReader, Sent, ServicesOf, key_of
from uplift_server.api.rendering import listed, replay_preview, replay_view
from uplift_server.api.repeats import mark_repeated
from uplift_server.api.replay_bodies import ReplayNew
from uplift_server.api.views import Listed, ReplayPreview, ReplayView
from uplift_server.core import ids
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
    summary="Create a replay",
    response_model_exclude_unset=True,
    responses={200: {"model": ReplayPreview, "description": "With `dry_run`: the number of deliveries."}},
)
async def create_replay(
    request: Request,
    response: Response,
    services: ServicesOf,
    caller: CallerOf,
    sent: Annotated[Sent, Depends(BodyReader(ReplayNew))],
) -> ReplayView | ReplayPreview:
    """Requires the scope `deliveries:write`. Resends completed deliveries to an endpoint, oldest event first.

    With `include_missing`, the replay also sends events that the endpoint never received. An endpoint can have only one
    unfinished replay.
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
    send_location(response, "replays", ids.prefixed(ids.REPLAY, shown.replay.id))
    return replay_view(shown, spans=caller.spans_accounts)


@router.get("/v1/replays", summary="List replays", response_model_exclude_unset=True)
async def list_replays(
    services: ServicesOf, caller: CallerOf, parsed: Annotated[ParsedQuery, Depends(QueryReader(Paging))]
) -> Listed[ReplayView]:
    """Requires the scope `deliveries:read`. Returns replays, newest first."""
    page = await services.replays.page(caller, parsed.values.listing(), problems=parsed.problems)
    return listed(page, lambda shown: replay_view(shown, spans=caller.spans_accounts), services.context)


@router.get("/v1/replays/{replay}", summary="Get a replay", response_model_exclude_unset=True)
async def get_replay(services: ServicesOf, caller: CallerOf, replay: str) -> ReplayView:
    """Requires the scope `deliveries:read`."""
    return replay_view(await services.replays.get(caller, replay), spans=caller.spans_accounts)


@router.post("/v1/replays/{replay}/pause", summary="Pause a replay", response_model_exclude_unset=True)
async def pause_replay(services: ServicesOf, caller: CallerOf, replay: str, sent: Empty) -> ReplayView:
    """Requires the scope `deliveries:write`. The server finishes attempts in flight.

    The other deliveries wait until you resume the replay.
    """
    return await _put_into(services, caller, replay, ReplayState.PAUSED, sent)


@router.post("/v1/replays/{replay}/resume", summary="Resume a replay", response_model_exclude_unset=True)
async def resume_replay(services: ServicesOf, caller: CallerOf, replay: str, sent: Empty) -> ReplayView:
    """Requires the scope `deliveries:write`. Continues a paused replay."""
    return await _put_into(services, caller, replay, ReplayState.RUNNING, sent)


@router.post("/v1/replays/{replay}/cancel", summary="Cancel a replay", response_model_exclude_unset=True)
async def cancel_replay(services: ServicesOf, caller: CallerOf, replay: str, sent: Empty) -> ReplayView:
    """Requires the scope `deliveries:write`. The server finishes attempts in flight.

    The other deliveries keep their status.
    """
    return await _put_into(services, caller, replay, ReplayState.CANCELLED, sent)


async def _put_into(services: Services, caller: Caller, replay: str, state: ReplayState, sent: Sent) -> ReplayView:
    shown = await services.replays.set_state(caller, replay, state, problems=sent.problems)
    return replay_view(shown, spans=caller.spans_accounts)
