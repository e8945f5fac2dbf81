"""Second factors in the dashboard: setup, sign-in with codes, forms after the session ended, and operator resets."""

import re
import time
from uuid import uuid4

from playwright.sync_api import Page, expect
from tests.dashboard.page_checks import check_page
from tests.dashboard.second_factors import PATH, current_code, recovery_codes, setup_fields, turn_on
from tests.dashboard.visitors import Guest, member, operator
from tests.e2e.harness import Server

from uplift_server.core.security import totp

PASSWORD = "seven quiet otters"
SESSION = "uplift_session"
PENDING = "uplift_pending"


def person(server: Server, account: str) -> tuple[Guest, str]:
    """Return a new owner with a password, and the email address."""
    email = f"{uuid4().hex}@factor.example"
    guest = member(server, account, "owner", email)
    assert guest.post("/you/password", page="/you", password=PASSWORD, follow=False).status == 303
    return guest, email


def wait_for_next_code() -> None:
    """Wait until the app shows a code that was not used."""
    time.sleep(totp.STEP_MS / 1000 - time.time() % (totp.STEP_MS / 1000))


def test_a_person_sets_up_an_app_and_signs_in(server: Server, page: Page) -> None:
    account, _ = server.account("Rapids")
    guest, email = person(server, account)
    guest.share_session(page).goto("/you")
    page.get_by_role("link", name="Set up second factor").click()
    expect(page.get_by_role("img", name="QR code")).to_be_visible()
    check_page(page, "second-factor-setup")
    key = page.locator(".code code").inner_text()
    page.get_by_role("textbox", name="Code").fill("000000")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Turn on second factor").click()
    expect(page.locator("#code-problem")).to_contain_text("not correct")
    expect(page.locator(".code code")).to_have_text(key)
    page.get_by_role("textbox", name="Code").fill(current_code(key))
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Turn on second factor").click()
    codes = recovery_codes(page.get_by_role("region", name="Recovery codes").inner_text())
    assert len(codes) == totp.RECOVERY_CODES
    check_page(page, "second-factor")

    page.get_by_role("button", name="Sign out").click()
    page.goto(f"/sign-in?next=/accounts/{account}/endpoints")
    page.get_by_label("Email").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Enter your code")).to_be_visible()
    check_page(page, "sign-in-code")
    page.get_by_role("textbox", name="Code").fill("not it")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("The code is not correct")
    wait_for_next_code()
    page.get_by_role("textbox", name="Code").fill(current_code(key))
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(f"{server.url}/accounts/{account}/endpoints")

    page.goto(PATH)
    page.get_by_role("textbox", name="Code").fill(codes[0])
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Turn off second factor").click()
    expect(page.get_by_role("status").filter(has_text="Your second factor is off")).to_be_visible()


def test_the_password_alone_gives_no_session(server: Server) -> None:
    account, _ = server.account()
    guest, email = person(server, account)
    codes = turn_on(guest, PASSWORD)
    fresh = Guest(server.url)
    asked = fresh.post("/sign-in", email=email, password=PASSWORD, next="/you")
    assert (asked.path, SESSION in fresh.cookies, PENDING in fresh.cookies) == ("/sign-in/code", False, True)
    assert fresh.get("/you").path == "/sign-in"
    stranger = Guest(server.url, {PENDING: "x" + fresh.cookies[PENDING]})
    assert stranger.post("/sign-in/code", page="/sign-in", code=codes[0]).path == "/sign-in"
    wrong = fresh.post("/sign-in/code", code="123456")
    assert (wrong.status, SESSION in fresh.cookies) == (401, False)
    right = fresh.post("/sign-in/code", code=codes[0], next="/you")
    assert (right.path, SESSION in fresh.cookies, PENDING in fresh.cookies) == ("/you", True, False)
    assert "9 unused recovery codes" in right.text


def test_wrong_codes_are_limited(server: Server) -> None:
    account, _ = server.account()
    guest, email = person(server, account)
    codes = turn_on(guest, PASSWORD)
    fresh = Guest(server.url)
    fresh.post("/sign-in", email=email, password=PASSWORD)
    assert [fresh.post("/sign-in/code", code="123456").status for _ in range(6)] == [401] * 5 + [429]
    assert fresh.post("/sign-in/code", code=codes[0]).status == 429
    assert SESSION not in fresh.cookies


def test_a_form_whose_session_ended_also_asks_for_the_code(server: Server) -> None:
    account, _ = server.account()
    guest, email = person(server, account)
    codes = turn_on(guest, PASSWORD)
    token = guest.get("/you").token
    del guest.cookies[SESSION]
    sent = {"csrf": token, "name": "Ada Lovelace"}
    origin = {"origin": server.url}
    page = guest.send("/you/name", sent, **origin)
    assert page.status == 401

    def again(**fields: str) -> None:
        nonlocal page
        own = re.search(r'name="sign_in.csrf" value="([^"]+)"', page.html)
        assert own is not None
        kept = {**sent, "sign_in.csrf": own[1], **{f"sign_in.{name}": value for name, value in fields.items()}}
        page = guest.send("/you/name", kept, **origin)

    again(email=email, password=PASSWORD)
    assert (page.status, "sign_in.code" in page.html, PASSWORD in page.html) == (401, True, False)
    again(enters_code="1", code="123456")
    assert (page.status, "sign_in.code" in page.html) == (401, True)
    again(enters_code="1", code=codes[0])
    assert page.status == 303
    assert 'value="Ada Lovelace"' in guest.get("/you").html


def test_a_form_with_a_code_asks_for_the_code_and_the_password_again(server: Server) -> None:
    account, _ = server.account()
    guest, _ = person(server, account)
    code = turn_on(guest, PASSWORD)[0]
    fields = {"csrf": "0" * 64, "code": code, "password": PASSWORD}
    asked = guest.send(f"{PATH}/off", fields, origin=server.url)
    assert (asked.status, code in asked.html, PASSWORD in asked.html) == (403, False, False)
    again = guest.send(f"{PATH}/off", {"csrf": guest.get("/you").token})
    assert (again.status, 'id="password-problem"' in again.html) == (422, True)
    assert "second factor is on" in guest.get("/you").text


def test_the_key_of_an_app_works_only_in_its_session(server: Server) -> None:
    account, _ = server.account()
    (one, _), (other, _) = person(server, account), person(server, account)
    response = other.post(PATH, **setup_fields(one, PASSWORD))
    assert "new QR code" in response.problem
    assert "Set up your app" in other.get(PATH).text


def test_only_operators_reset_a_second_factor(server: Server) -> None:
    account, _ = server.account()
    guest, email = person(server, account)
    turn_on(guest, PASSWORD)
    settings = f"/accounts/{account}/settings"
    [found] = [each for each in server.api().list_all(f"/v1/accounts/{account}/members") if each["email"] == email]
    assert found["has_second_factor"]
    path = f"{settings}/members/{found['id']}/second-factor"
    owner = member(server, account, "owner", "olga@factor.example")
    assert "has a second factor" in owner.get(settings).text
    assert owner.post(path, page=settings).status == 404
    assert "member's second factor is off" in operator(server).post(path, page=settings).text
    fresh = Guest(server.url)
    fresh.post("/sign-in", email=email, password=PASSWORD)
    assert SESSION in fresh.cookies


def test_people_without_a_password_or_an_email_have_no_second_factor(server: Server) -> None:
    account, _ = server.account()
    assert "You have no password" in member(server, account, "member").get(PATH).text
    assert operator(server).get(PATH).status == 404
