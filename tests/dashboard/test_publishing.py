"""Event types for operators: create, edit, archive and delete."""

import json
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Page
from tests.dashboard.operators import sign_in_operator
from tests.dashboard.page_checks import check_page
from tests.dashboard.visitors import Guest, PageResponse, member, operator
from tests.e2e.harness import OPERATOR_KEY, Server

SCHEMA = {"type": "object", "properties": {"object": {"type": "object", "properties": {"n": {"type": "number"}}}}}
LIST = "/operator/event-types"


def unique_name() -> str:
    """Return a unique name."""
    return f"console.t{uuid4().hex}.happened"


def publish(guest: Guest, name: str, **fields: Any) -> PageResponse:
    """Submit the form."""
    sent = {"description": "It happened.", "schema": json.dumps(SCHEMA), "example": '{"object": {"n": 1}}', **fields}
    return guest.post(f"{LIST}/new-type", name=name, **sent)


def test_an_event_type_is_created_updated_archived_and_deleted(server: Server) -> None:
    guest, name = operator(server), unique_name()
    account, _ = server.account()
    acting = server.api(OPERATOR_KEY, account)
    page = publish(guest, name, description="<i>It</i> happened.")
    assert page.path == f"{LIST}/{name}"
    assert f"{name} created" in page.text
    assert "<i>It" not in page.html
    found = acting.ok("GET", f"/v1/event-types/{name}")
    assert (found["group"], found["schema"], found["example"]) == ("console", SCHEMA, {"object": {"n": 1}})
    assert acting("POST", "/v1/events", {"type": name, "data": {"object": {"n": "x"}}}).status == 422
    acting.ok("POST", "/v1/events", {"type": name, "data": {"object": {"n": 2}}})

    page = guest.post(f"{LIST}/{name}", description="It happened again.", group="tests", schema="", example="")
    assert f"{name} updated." in page.text
    found = acting.ok("GET", f"/v1/event-types/{name}")
    assert (found["group"], found["description"], found["schema"]) == ("tests", "It happened again.", None)

    page = guest.post(f"{LIST}/{name}/archive", page=f"{LIST}/{name}", archived="yes")
    assert f"{name} archived" in page.text
    assert acting("POST", "/v1/events", {"type": name, "data": {"object": {}}}).status == 422
    page = guest.post(f"{LIST}/{name}", description="Still archived.")
    assert acting.ok("GET", f"/v1/event-types/{name}")["archived"] is True
    page = guest.post(f"{LIST}/{name}/archive", page=f"{LIST}/{name}")
    assert "restored." in page.text
    found = acting.ok("GET", f"/v1/event-types/{name}")
    assert (found["archived"], found["description"]) == (False, "Still archived.")

    assert f'href="{LIST}/{name}"' in guest.get(f"{LIST}?search={name[8:20]}").html
    page = guest.post(f"{LIST}/{name}/delete", page=f"{LIST}/{name}")
    assert f"{name} deleted" in page.text
    assert guest.get(f"{LIST}/{name}").status == 404


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "Not A Name", "The event type is not valid"),
        ("name", "movement.analytics.created", "The event type already exists."),
        ("schema", '{"type": 1}', "The schema is not valid JSON Schema 2020-12"),
        ("schema", '{"type": ', "Invalid JSON: Expecting value at line 1, column 10."),
        ("schema", "NaN", "NaN"),
        ("schema", "[" * 20_000, "Invalid JSON"),
        ("schema", r'{"title": "\ud800"}', "unpaired surrogate"),
        ("example", r'{"object": "\ud800"}', "unpaired surrogate"),
        ("example", '{"object": {"n": "x"}}', 'At object.n: "x" is not of type "number". Compare the data with'),
        ("example", "{'a': 1}", "Invalid JSON"),
    ],
)
def test_an_invalid_field_shows_an_error_and_keeps_the_input(
    server: Server, field: str, value: str, message: str
) -> None:
    guest, name = operator(server), unique_name()
    page = publish(guest, name if field != "name" else value, **({field: value} if field != "name" else {}))
    assert page.status == 422
    problem = page.html.split(f'id="{field}-problem">')[1].split("</p>")[0]
    assert message in PageResponse(0, "", page.headers, problem).text
    assert "It happened.</textarea>" in page.html
    assert guest.get(f"{LIST}/{name}").status == 404


def test_an_invalid_update_changes_nothing(server: Server) -> None:
    guest, name = operator(server), unique_name()
    publish(guest, name)
    page = guest.post(f"{LIST}/{name}", description="Other.", schema="{", example="")
    assert page.status == 422
    assert "Other.</textarea>" in page.html
    assert server.api().ok("GET", f"/v1/event-types/{name}")["description"] == "It happened."


def test_members_cannot_create_event_types(server: Server) -> None:
    account, _ = server.account()
    guest = member(server, account)
    assert guest.get(LIST).status == 404
    token = guest.get(f"/accounts/{account}/endpoints").token
    name = unique_name()
    assert guest.post(f"{LIST}/new-type", token=token, name=name, description="x").status == 404
    assert server.api()("GET", f"/v1/event-types/{name}").status == 404


def test_an_operator_creates_and_deletes_an_event_type(server: Server, page: Page) -> None:
    name = unique_name()
    sign_in_operator(page).goto(LIST)
    page.get_by_role("link", name="Create event type").click()
    page.get_by_label("Name").fill(name)
    page.get_by_label("Example").fill('{"object": 1}')
    page.get_by_role("button", name="Create event type").click()
    page.get_by_text('At object: 1 is not of type "object". Compare the data').wait_for()
    check_page(page)
    page.get_by_label("Example").fill('{"object": {}}')
    page.get_by_role("button", name="Create event type").click()
    page.get_by_text(f"{name} created").wait_for()
    check_page(page)
    page.get_by_role("button", name="Delete event type").click()
    page.locator(":popover-open").get_by_role("button", name="Delete event type").click()
    page.get_by_text(f"{name} deleted").wait_for()
