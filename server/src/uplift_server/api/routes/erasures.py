"""Routes for erasures, which remove personal data."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from uplift_server.api.bodies import ErasureNew
from uplift_server.api.erasure_rendering import ErasurePreviewView, ErasureView, erasure_preview, erasure_view
from uplift_server.api.queries import Paging
from uplift_server.api.reading import BodyReader, CallerOf, ParsedQuery, QueryReader, Sent, ServicesOf, key_of
from uplift_server.api.rendering import listed
from uplift_server.api.repeats import mark_repeated
from uplift_server.api.views import Listed
from uplift_server.service.erasures import ErasureDraft

router = APIRouter(tags=["Erasures"])


@router.post(
    "/v1/accounts/{account}/erasures",
    status_code=202,
    summary="Erase events",
    responses={200: {"model": ErasurePreviewView, "description": "With `dry_run`: the number of events."}},
)
async def create_erasure(
    request: Request,
    response: Response,
    services: ServicesOf,
    caller: CallerOf,
    account: str,
    sent: Annotated[Sent, Depends(BodyReader(ErasureNew))],
) -> ErasureView | ErasurePreviewView:
    """Requires an operator key. Erases the content of events that the server accepted before the request.

    With `dry_run`, the server only counts the events.
    """
    given = dict(sent.given)
    dry_run = given.pop("dry_run", False)
    draft = ErasureDraft(**given)
    if dry_run:
        response.status_code = 200
        preview = await services.erasures.preview(caller, account, draft, problems=sent.problems)
        return erasure_preview(preview)
    erasure, repeated = await services.erasures.create(
        caller, account, draft, idempotency_key=key_of(request, sent), problems=sent.problems
    )
    mark_repeated(response, repeated=repeated)
    return erasure_view(erasure)


@router.get("/v1/accounts/{account}/erasures", summary="List erasures")
async def list_erasures(
    services: ServicesOf, caller: CallerOf, account: str, parsed: Annotated[ParsedQuery, Depends(QueryReader(Paging))]
) -> Listed[ErasureView]:
    """Requires an operator key. Returns erasures, newest first."""
    page = await services.erasures.page(caller, account, parsed.values.listing(), problems=parsed.problems)
    return listed(page, erasure_view, services.context)


@router.get("/v1/accounts/{account}/erasures/{erasure}", summary="Get an erasure")
async def get_erasure(services: ServicesOf, caller: CallerOf, account: str, erasure: str) -> ErasureView:
    """Requires an operator key.

    A completed erasure serves as its own receipt. The server keeps the receipt while the account exists.
    """
    return erasure_view(await services.erasures.get(caller, account, erasure))
