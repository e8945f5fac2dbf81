"""Stored and submitted values appear as text on all pages, and never as HTML elements."""

from html.parser import HTMLParser
from urllib.parse import quote, urlsplit

import pytest
from tests.dashboard import visitors
from tests.dashboard.full_account import FullAccount
from tests.dashboard.routes import path_with_ids
from tests.dashboard.visitors import Guest
from tests.e2e.harness import Server, deliveries_of, settled
from tests.e2e.receiving import Receiver, respond

from uplift_server.dashboard.app import PAGES
from uplift_server.dashboard.routes import Door, Page

GET_PAGES = [page for page in PAGES if page.method == "GET" and not page.path.endswith("/live")]
TYPE = "marked.type"


def mark(field: str) -> str:
    """Return a text that creates an element wherever a page does not escape it."""
    return f"""'"></textarea></script><i data-mark="{field}">"""


class _Marks(HTMLParser):
    """Collects marks that became elements, marks that stayed text, and event handlers."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.texts = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "data-mark" or name.startswith("on") or (value or "").lstrip().lower().startswith("javascript:"):
                self.elements.append(f"<{tag} {name}={value!r}>")
            self.texts += f" {value}"

    def handle_data(self, data: str) -> None:
        self.texts += data


@pytest.fixture(scope="module")
def full_account(server: Server, shared_receiver: Receiver) -> FullAccount:
    """An account with a mark in every field."""
    full_account = FullAccount(server, shared_receiver.url("/first"), mark("account name")[:100])
    operator, api = server.api(), full_account.api
    operator.ok(
        "PUT",
        f"/v1/event-types/{TYPE}",
        {
            "description": mark("type description"),
            "group": mark("type group"),
            "schema": {"type": "object", "description": mark("schema"), "properties": {mark("property"): {}}},
            "example": {mark("example"): 1},
        },
    )
    reply = respond(500, mark("response body").encode(), x_marked=mark("response header"))
    url = shared_receiver.url(f"/marked?{quote(mark('url'), safe='')}", reply)
    endpoint = api.endpoint(
        url, description=mark("endpoint description"), headers={"X-Own": mark("header")}, event_types=[TYPE]
    )
    event = api.ok("POST", "/v1/events", {"type": TYPE, "data": {mark("event data"): mark("event data")}})["id"]
    [delivery] = [each for each in deliveries_of(api, event) if each["endpoint"] == endpoint["id"]]
    settled(api, delivery["id"])
    made = api.ok("POST", f"/v1/accounts/{full_account.id}/keys", {"name": mark("key name")})
    session = server.api(made["key"]).ok("POST", "/v1/listen-sessions", {"event_types": [TYPE]})
    people = f"/v1/accounts/{full_account.id}/members"
    invitation = operator.ok("POST", people, {"email": f"marked@{full_account.id[4:]}.example", "role": "manager"})[
        "url"
    ]
    joined = Guest(server.url).post(
        urlsplit(invitation).path, name=mark("member name"), password="seven quiet otters swim", follow=False
    )
    assert joined.status == 303
    full_account.ids |= {
        "endpoint": endpoint["id"],
        "event": event,
        "delivery": delivery["id"],
        "key": made["id"],
        "session": session["id"],
        "replay": api.ok("POST", "/v1/replays", {"endpoint": endpoint["id"], "types": [TYPE]})["id"],
        "type": TYPE,
        "name": TYPE,
        "token": quote(mark("token"), safe=""),
    }
    return full_account


@pytest.fixture(scope="module")
def pages(server: Server, full_account: FullAccount) -> list[tuple[Page, str, str]]:
    """All pages for the owner and an operator: page, path and HTML."""
    owner, operator, stranger = full_account.member(), visitors.operator(server), Guest(server.url)
    found = []
    for page in GET_PAGES:
        path = path_with_ids(page, full_account.ids)
        guests = {Door.OPERATOR: (operator,), Door.ANYBODY: (stranger,)}.get(page.door, (owner, operator))
        for guest in guests:
            queries = ("", _query(), f"id={full_account.ids['endpoint']}", f"id={full_account.ids['event']}")
            requested = [f"{path}?{query}" for query in queries]
            found += [(page, each, guest.get(each).html) for each in requested]
    return found


@pytest.fixture(scope="module")
def texts(pages: list[tuple[Page, str, str]]) -> str:
    """The text of all pages. Fails if a mark became an element."""
    read, wrong = "", []
    for _, requested, html in pages:
        marks = _Marks()
        marks.feed(html)
        read += marks.texts
        wrong += [f"{found} on {requested}" for found in marks.elements]
    assert not wrong
    return read


def _query() -> str:
    names = (
        "next",
        "cursor",
        "type",
        "endpoint",
        "q",
        "id",
        "status",
        "state",
        "actor",
        "action",
        "created_after",
        "delivery",
    )
    return "&".join(f"{name}={quote(mark(name), safe='')}" for name in names)


@pytest.mark.parametrize(
    "field",
    [
        "account name",
        "type description",
        "type group",
        "schema",
        "property",
        "example",
        "response body",
        "response header",
        "endpoint description",
        "event data",
        "key name",
        "member name",
    ],
)
def test_stored_values_are_shown_unchanged(field: str, texts: str) -> None:
    assert mark(field)[:100] in texts or mark(field).replace('"', '\\"') in texts


def test_url_queries_are_shown_only_on_pages_about_the_url(
    pages: list[tuple[Page, str, str]],
) -> None:
    paths = {page.path for page, _, html in pages if quote(mark("url"), safe="") in html}

    assert paths == {
        "/accounts/{account}/endpoints/{endpoint}/edit",
        "/accounts/{account}/endpoints/{endpoint}/subscription",
        "/accounts/{account}/deliveries/{delivery}",
    }


def test_a_rejected_form_shows_its_input_as_text(server: Server, full_account: FullAccount) -> None:
    guest = full_account.member()
    path = f"/accounts/{full_account.id}/endpoints/new"
    fields = {"url": mark("sent"), "description": mark("sent"), "secret": mark("sent"), "headers": mark("sent")}
    for response in (
        guest.post(path, follow=False, **fields),
        guest.post("/sign-in/operator", page=path, follow=False, key=mark("sent"), next=mark("sent")),
        guest.post("/sign-in", page=path, follow=False, email=mark("sent"), password=mark("sent"), next=mark("sent")),
    ):
        assert response.status in {401, 422}
        marks = _Marks()
        marks.feed(response.html)
        assert marks.elements == []
        assert mark("sent") in marks.texts
