"""The Get started page."""

from contextlib import closing
from pathlib import Path

from playwright.sync_api import Page, expect
from tests.dashboard.browsing import WITHOUT_SCRIPTS, OpenPage
from tests.dashboard.visitors import member, open_overview, operator
from tests.e2e.harness import Server, serving
from tests.e2e.receiving import Receiver, respond

from uplift_server.dashboard.snippets import FRAMEWORKS, snippet, variable_line


def test_the_page_leads_to_the_first_2xx_without_a_reload(server: Server, page: Page) -> None:
    account, api = server.account()
    with closing(Receiver()) as receiver:
        url = receiver.url("/webhook", respond(503))
        open_overview(page, member(server, account, "manager", "ada@t2-get-started.example"))
        page.get_by_role("link", name="Get started").first.click()
        expect(page.get_by_text("Create an endpoint first.")).to_be_visible()

        page.get_by_label("URL").fill(url)
        page.get_by_role("button", name="Create endpoint").click()
        [endpoint] = api.ok("GET", "/v1/endpoints")["data"]
        secret = api.ok("GET", f"/v1/endpoints/{endpoint['id']}/secret")["secret"]
        expect(page.get_by_text(variable_line(secret))).to_be_visible()
        page.get_by_role("button", name="Copy secret").click()
        assert page.evaluate("navigator.clipboard.readText()") == secret
        expect(page.locator("#live")).to_contain_text("503: ")
        expect(page.locator("#live")).not_to_contain_text("Your server received an event.")

        receiver.url("/webhook", respond(204))
        page.get_by_role("button", name="Send test event").click()

        expect(page.locator("#live")).to_contain_text("Your server received an event.")
        expect(page.get_by_role("status").filter(has_text="Your server responded with 204")).to_be_visible()


def test_the_page_works_without_scripts(server: Server, open_page: OpenPage) -> None:
    account, _ = server.account()
    with closing(Receiver()) as receiver:
        page = open_page(WITHOUT_SCRIPTS)
        open_overview(page, member(server, account, "manager"))
        page.goto(f"/accounts/{account}/get-started?framework=django")
        page.get_by_label("URL").fill(receiver.url("/plain", respond(200)))
        page.get_by_role("button", name="Create endpoint").click()
        expect(page.get_by_text("export UPLIFT_WEBHOOK_SECRET=whsec_")).to_be_visible()
        expect(page.get_by_text("def receive_with_django")).to_be_visible()

        page.get_by_role("button", name="Send test event").click()

        expect(page.get_by_text("Your server received an event.")).to_be_visible()
        expect(page.get_by_text("def receive_with_django")).to_be_visible()
        page.get_by_role("link", name="FastAPI").click()
        expect(page.get_by_text("async def receive_with_fastapi")).to_be_visible()


def test_the_page_shows_the_first_2xx_live(server: Server, page: Page) -> None:
    account, api = server.account()
    with closing(Receiver()) as receiver:
        api.endpoint(receiver.url("/later", respond(500)))
        open_overview(page, member(server, account, "member"))
        page.goto(f"/accounts/{account}/get-started")
        expect(page.locator("#live")).to_contain_text("This page updates when your server responds")

        receiver.url("/later", respond(200))
        api.send(1)

        expect(page.locator("#live")).to_contain_text("Your server received an event.", timeout=15_000)


def test_a_slow_test_event_shows_its_outcome_live(server: Server, page: Page) -> None:
    account, api = server.account()
    with closing(Receiver()) as receiver:
        url = receiver.url("/slow", respond(500))
        api.endpoint(url)
        open_overview(page, member(server, account, "member"))
        page.goto(f"/accounts/{account}/get-started")
        expect(page.locator("#live")).to_contain_text("This page updates when your server responds")

        receiver.url("/slow", respond(204, after=5))
        page.get_by_role("button", name="Send test event").click()
        expect(page.get_by_role("status").filter(has_text="Test event in flight")).to_be_visible()

        expect(page.locator("#live")).to_contain_text("Your server received an event.")


def test_a_resubmitted_form_creates_one_endpoint(server: Server) -> None:
    account, api = server.account()
    path = f"/accounts/{account}/get-started"
    visitor = member(server, account, "manager")
    sent = {"url": "http://127.0.0.1:9/webhook", "once": "0123456789abcdef"}
    first = visitor.post(f"{path}/endpoint", page="/you", **sent)
    again = visitor.post(f"{path}/endpoint", page="/you", **sent)

    assert (first.status, "export UPLIFT_WEBHOOK_SECRET=whsec_" in first.html) == (200, True)
    assert (again.status, "export UPLIFT_WEBHOOK_SECRET=whsec_" in again.html) == (200, True)
    assert len(api.ok("GET", "/v1/endpoints")["data"]) == 1


def test_an_invalid_url_shows_an_error_at_its_field(server: Server) -> None:
    account, _ = server.account()
    visitor = member(server, account, "manager")
    response = visitor.post(
        f"/accounts/{account}/get-started/endpoint", page="/you", follow=False, url="ftp://<b>x</b>"
    )

    assert response.status == 422
    assert 'id="url-problem"' in response.html
    assert "ftp://&lt;b&gt;x&lt;/b&gt;" in response.html
    assert "<b>x</b>" not in response.html


def test_a_rejected_local_address_leads_to_listen(tmp_path: Path) -> None:
    with serving(tmp_path / "data", UPLIFT_ALLOW_PRIVATE_NETWORKS="false") as server:
        account, _ = server.account()
        visitor = member(server, account, "manager")
        for path in ("get-started/endpoint", "endpoints/new"):
            response = visitor.post(
                f"/accounts/{account}/{path}", page="/you", follow=False, url="http://localhost:5000/in"
            )
            assert response.status == 422
            assert "<code>uplift listen --forward-to http://localhost:5000/in</code>" in response.html
            assert f'<a href="/accounts/{account}/get-started#listen">Listen on your computer</a>' in response.html
            assert "UPLIFT_ALLOW" not in response.html


def test_the_secret_is_shown_soon_after_sign_in(server: Server) -> None:
    account, api = server.account()
    endpoint = api.endpoint("http://127.0.0.1:9/webhook")
    path, fields = f"/accounts/{account}/get-started", {"endpoint": endpoint["id"], "framework": "django"}
    visitor = member(server, account, "manager")
    shown = visitor.post(f"{path}/secret", page="/you", **fields)
    assert shown.status == 200
    assert variable_line(endpoint["secret"]) in shown.text
    assert "receive_with_django" in shown.html
    assert shown.headers["cache-control"] == "no-store"
    assert [each["action"] for each in api.ok("GET", "/v1/audit-log?action=secret.revealed")["data"]]


def test_a_member_can_test_but_cannot_create_or_see_secrets(server: Server) -> None:
    account, api = server.account()
    path = f"/accounts/{account}/get-started"
    visitor = member(server, account, "member")
    assert "Your role does not allow you to create endpoints" in visitor.get(path).text
    assert visitor.post(f"{path}/endpoint", page="/you", follow=False, url="http://127.0.0.1:9/x").status == 403
    endpoint = api.endpoint("http://127.0.0.1:9/x")["id"]
    assert "Your role does not allow you to reveal secrets" in visitor.get(path).text
    assert visitor.post(f"{path}/secret", page="/you", follow=False, endpoint=endpoint).status == 403
    tested = visitor.post(f"{path}/test", page="/you", follow=False, endpoint=endpoint)
    assert tested.status == 303
    text = visitor.get(tested.headers["location"]).text
    assert "Test event failed" in text
    assert "no program is listening on this address and port" in text


def test_endpoints_of_another_account_are_not_found(server: Server) -> None:
    _, other = server.account("Other")
    foreign = other.endpoint("http://127.0.0.1:9/foreign")["id"]
    account, _ = server.account()
    path = f"/accounts/{account}/get-started"
    visitor = member(server, account, "admin")
    assert visitor.get(f"{path}?endpoint={foreign}").status == 404
    assert visitor.post(f"{path}/secret", page="/you", follow=False, endpoint=foreign).status == 404
    assert visitor.post(f"{path}/test", page="/you", follow=False, endpoint=foreign).status == 404


def test_the_url_selects_the_framework(server: Server) -> None:
    account, _ = server.account()
    visitor = operator(server)
    for name in FRAMEWORKS:
        shown = visitor.get(f"/accounts/{account}/get-started?framework={name}").text
        assert [other for other in FRAMEWORKS if " ".join(snippet(other).split("def ")[1].split()) in shown] == [name]
