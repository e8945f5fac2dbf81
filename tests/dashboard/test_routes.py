"""What the walks walk over: no place of an application is forgotten, no form of a page."""

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from tests.dashboard.routes import Form, Place, forms, links, places


def _page(request: Request) -> Response:
    raise AssertionError("nobody asks")


def test_places_are_found_wherever_they_are_mounted() -> None:
    routes = [
        Route("/", _page),
        Mount("/accounts/{account}", routes=[Route("/events/{event:str}", _page, methods=["GET", "POST"])]),
        Mount("/static", StaticFiles(directory="/")),
    ]

    assert places(routes) == [
        Place("/", "GET"),
        Place("/accounts/{account}/events/{event:str}", "GET"),
        Place("/accounts/{account}/events/{event:str}", "POST"),
    ]


def test_a_place_is_filled_with_ids() -> None:
    place = Place("/accounts/{account}/events/{event:str}", "POST")

    assert place.parameters == ("account", "event")
    assert place.at({"account": "acc_1", "event": "e", "endpoint": "ep_1"}) == "/accounts/acc_1/events/e"
    with pytest.raises(AssertionError, match=r"^POST \S+: the walks know no id for event"):
        place.at({"account": "acc_1"})


def test_what_is_no_ordinary_route_is_not_passed_over() -> None:
    async def stream(socket: object) -> None: ...

    with pytest.raises(AssertionError, match="WebSocketRoute"):
        places([WebSocketRoute("/live", stream)])


def test_forms_are_read_as_they_would_be_sent() -> None:
    html = """
        <input name=outside value=1><a href="/there?a=1&amp;b=2">there</a><a name=here>here</a>
        <form method=post action="/sign-out"><input type=hidden name=csrf value="a&amp;b"><button>Go</button></form>
        <form action=/events><input name=q><input type=checkbox name=a value=1 checked>
        <input type=checkbox name=b value=1>
        <select name=type></select><textarea name=text></textarea></form>
    """

    assert forms(html) == [
        Form("POST", "/sign-out", {"csrf": "a&b"}),
        Form("GET", "/events", {"q": "", "a": "1", "type": "", "text": ""}),
    ]
    assert links(html) == ["/there?a=1&b=2"]
