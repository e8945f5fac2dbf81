"""The Get started page."""

import re
from contextlib import closing
from pathlib import Path

from playwright.sync_api import Page, expect
from tests.dashboard.browsing import WITHOUT_SCRIPTS, OpenPage
from tests.dashboard.visitors import member, open_overview, operator
from tests.e2e.harness import Server, serving
from tests.e2e.receiving import Receiver, respond, verify

from uplift_server.dashboard.snippets import FRAMEWORKS, snippet, variable_line


def test_each_step_is_ticked_by_its_own_proof(server: Server, page: Page) -> None:
    """The page updates itself from the first sign-in to a verified endpoint."""
    account, api = server.account()
    with closing(Receiver()) as receiver:
        url = receiver.url("/webhook", respond(200))
        member(server, account, "manager", "ada@t2-get-started.example").share_session(page).goto("/")
        expect(page).to_have_url(re.compile("/get-started$"))
        expect(page.get_by_text("Create an endpoint first.").first).to_be_visible()

        page.get_by_label("URL", exact=True).fill(url)
        page.get_by_role("button", name="Create endpoint").click()
        [endpoint] = api.ok("GET", "/v1/endpoints")["data"]
        secret = api.ok("GET", f"/v1/endpoints/{endpoint['id']}/secret")["secret"]
        expect(page.get_by_text(variable_line(secret))).to_be_visible()
        page.get_by_role("button", name="Copy secret").click()
        assert page.evaluate("navigator.clipboard.readText()") == secret

        # The receiver accepts the registration event, but this completes no further step.
        expect(page.locator("#live")).to_contain_text(re.compile(r"Registration event:.* status code 200"))
        assert ticked(page) == ["1. Create endpoint"]

        page.get_by_role("button", name="Send test event").click()
        expect(page.get_by_role("status").filter(has_text="Your server responded with 200")).to_be_visible()
        assert ticked(page) == ["1. Create endpoint", "3. Send test event"]

        page.get_by_role("button", name="Check signatures").click()
        expect(page.get_by_text("Your server accepted a request with a wrong signature.")).to_be_visible()
        assert ticked(page) == ["1. Create endpoint", "3. Send test event"]

        receiver.url("/webhook", verify(secret))
        page.get_by_role("button", name="Check signatures").click()
        expect(page.get_by_text("Your endpoint is verified")).to_be_visible()
        for _ in range(2):
            expect(page.get_by_role("row", name="Wrong signature 401")).to_contain_text("rejected", ignore_case=True)
            expect(page.get_by_role("row", name="Valid signature 204")).to_contain_text("accepted", ignore_case=True)
            assert len(ticked(page)) == 4
            page.reload()
        page.goto("/")
        expect(page).to_have_url(re.compile("/overview$"))


def ticked(page: Page) -> list[str]:
    """Return the titles of the completed steps."""
    heads = page.locator("section.card .head", has=page.locator(".status.completed"))
    return [head.get_by_role("heading").inner_text() for head in heads.all()]


def test_the_page_works_without_scripts(server: Server, open_page: OpenPage) -> None:
    account, api = server.account()
    with closing(Receiver()) as receiver:
        page = open_page(WITHOUT_SCRIPTS)
        open_overview(page, member(server, account, "manager"))
        page.goto(f"/accounts/{account}/get-started?framework=django")
        page.get_by_label("URL", exact=True).fill(receiver.url("/plain", respond(500)))
        page.get_by_role("button", name="Create endpoint").click()
        expect(page.get_by_text("export UPLIFT_WEBHOOK_SECRET=whsec_")).to_be_visible()
        expect(page.get_by_text("def receive_with_django")).to_be_visible()
        [endpoint] = api.ok("GET", "/v1/endpoints")["data"]
        receiver.url("/plain", verify(api.ok("GET", f"/v1/endpoints/{endpoint['id']}/secret")["secret"]))

        page.get_by_role("button", name="Check signatures").click()

        expect(page.get_by_text("Your endpoint is verified")).to_be_visible()
        expect(page.get_by_text("def receive_with_django")).to_be_visible()
        page.get_by_role("link", name="FastAPI").click()
        expect(page.get_by_text("async def receive_with_fastapi")).to_be_visible()


def test_a_slow_test_event_shows_its_outcome_live(server: Server, page: Page) -> None:
    account, api = server.account()
    with closing(Receiver()) as receiver:
        url = receiver.url("/slow", respond(500))
        api.endpoint(url)
        open_overview(page, member(server, account, "member"))
        page.goto(f"/accounts/{account}/get-started")

        receiver.url("/slow", respond(204, after=5))
        page.get_by_role("button", name="Send test event").click()
        expect(page.get_by_role("status").filter(has_text="Test event in flight")).to_be_visible()

        expect(page.locator("#live")).to_contain_text("status code 204", timeout=15_000)


def test_a_delivery_of_another_endpoint_is_not_shown(server: Server) -> None:
    account, api = server.account()
    first, second = (api.endpoint(f"http://127.0.0.1:9/{name}")["id"] for name in ("a", "b"))
    tested = api.ok("POST", f"/v1/endpoints/{first}/test")["delivery"]
    _, other = server.account("Other")
    foreign = other.ok("POST", f"/v1/endpoints/{other.endpoint('http://127.0.0.1:9/x')['id']}/test")["delivery"]
    visitor = member(server, account, "member")
    path = f"/accounts/{account}/get-started"
    assert tested in visitor.get(f"{path}?endpoint={first}&tested={tested}").html
    for endpoint, delivery in ((second, tested), (first, foreign), (first, "dlv_0")):
        html = visitor.get(f"{path}?endpoint={endpoint}&tested={delivery}&wrong={delivery}&valid={delivery}").html
        assert f'deliveries/{delivery}"' not in html


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


def test_the_error_of_a_local_address_names_uplift_listen(tmp_path: Path) -> None:
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
    assert 'href="#listen"' not in visitor.get(path).html
    assert 'href="#listen"' in member(server, account, "owner").get(path).html
    assert visitor.post(f"{path}/endpoint", page="/you", follow=False, url="http://127.0.0.1:9/x").status == 403
    endpoint = api.endpoint("http://127.0.0.1:9/x")["id"]
    assert "Your role does not allow you to reveal secrets" in visitor.get(path).text
    assert visitor.post(f"{path}/secret", page="/you", follow=False, endpoint=endpoint).status == 403
    tested = visitor.post(f"{path}/test", page="/you", follow=False, endpoint=endpoint)
    assert tested.status == 303
    page = visitor.get(tested.headers["location"])
    assert 'role="alert">Test event failed' in page.html
    text = page.text
    assert "no program is listening on this address and port" in text
    # The step is shown as failed on the page with the test result, and on the page without the result.
    for html in (page.html, visitor.get(path).html):
        step = html.partition('id="step-3"')[2].partition("</div>")[0]
        assert "Failed" in step
        assert "Done" not in step


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
        assert [other for other in FRAMEWORKS if " ".join(snippet(other).split()) in shown] == [name]


def test_the_sample_has_the_path_and_port_of_the_endpoint(server: Server) -> None:
    account, api = server.account()
    endpoint = api.endpoint("http://127.0.0.1:9/hooks/in")["id"]
    visitor = member(server, account, "member")
    shown = visitor.get(f"/accounts/{account}/get-started?endpoint={endpoint}&framework=go").text
    assert 'http.HandleFunc("/hooks/in"' in shown
    assert 'http.ListenAndServe(":9"' in shown
    assert 'http.HandleFunc("/hooks/in"' in visitor.get(f"/accounts/{account}/endpoints/{endpoint}/security").text
