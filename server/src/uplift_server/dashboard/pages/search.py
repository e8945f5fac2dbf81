"""Search: list the objects that match the search text, or redirect to the page of the only match."""

from typing import Final

from starlette.responses import Response

from uplift_server.dashboard.pages import rejected_events
from uplift_server.dashboard.routes import account_page, operator_page
from uplift_server.dashboard.visit import Visit, link
from uplift_server.service.search import HITS_MAX, TEXT_CHARACTERS_MAX, Hit, HitKind

_PAGES: Final = {
    HitKind.EVENT: "events",
    HitKind.DELIVERY: "deliveries",
    HitKind.ENDPOINT: "endpoints",
    HitKind.REPLAY: "replays",
}


async def found(visit: Visit) -> Response:
    """List the objects that match the query parameter `q`, or redirect to the page of the only match."""
    text = visit.query.text("q")[:TEXT_CHARACTERS_MAX]
    hits = await visit.services.search.find(visit.caller, text)
    if len(hits) == 1:
        return visit.leave(_path(visit, hits[0]))
    return visit.render(
        "search.html",
        text=text,
        rejected=None if hits else await rejected_events.list_path(visit, text.strip()),
        hits=[(hit, _path(visit, hit)) for hit in hits],
        is_cut=len(hits) == HITS_MAX,
    )


def _path(visit: Visit, hit: Hit) -> str:
    if hit.kind is HitKind.OBJECT:
        return link("/operator/deliveries" if visit.account is None else visit.path("events"), object_id=hit.id)
    if hit.kind is HitKind.ACCOUNT:
        return f"/operator/accounts/{hit.id}"
    if visit.account is None and hit.kind in {HitKind.EVENT, HitKind.DELIVERY}:
        return link("/operator/trace", id=hit.id)
    return f"/accounts/{hit.account}/{_PAGES[hit.kind]}/{hit.id}"


PAGES: Final = (account_page("/search", found), operator_page("/search", found))
