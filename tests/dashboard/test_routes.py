"""Test helpers that fill paths and read forms."""

import pytest
from starlette.responses import Response
from tests.dashboard.routes import Form, forms, links, parameters, path_with_ids

from uplift_server.dashboard.routes import account_form
from uplift_server.dashboard.visit import Visit


async def _serve(_: Visit) -> Response:
    raise AssertionError("the route is not called")


def test_a_path_is_filled_with_ids() -> None:
    page = account_form("/events/{event:str}", _serve)

    assert parameters(page) == ("account", "event")
    assert path_with_ids(page, {"account": "acc_1", "event": "e", "endpoint": "ep_1"}) == "/accounts/acc_1/events/e"
    with pytest.raises(AssertionError, match=r"^POST \S+: no ID for event"):
        path_with_ids(page, {"account": "acc_1"})


def test_forms_have_the_values_that_a_browser_sends() -> None:
    html = """
        <input name=outside value=1><a href="/there?a=1&amp;b=2">there</a><a name=here>here</a>
        <form method=post action="/sign-out"><input type=hidden name=csrf value="a&amp;b"><button>Go</button></form>
        <form action=/events><input name=q><input type=checkbox name=a value=1 checked>
        <input type=checkbox name=b value=1>
        <select name=type></select><select name=status><option value="">All<option value=failed>Failed</select>
        <select name=role><option value=member><option value=admin selected><option value=owner></select>
        <textarea name=text></textarea></form>
    """

    assert forms(html) == [
        Form("POST", "/sign-out", {"csrf": "a&b"}),
        Form("GET", "/events", {"q": "", "a": "1", "type": "", "status": "", "role": "admin", "text": ""}),
    ]
    assert links(html) == ["/there?a=1&b=2"]
