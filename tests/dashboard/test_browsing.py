"""The browser contexts of the tests record errors and forbidden requests, and the dashboard's htmx causes none."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect
from tests.dashboard.accessibility import check_accessibility
from tests.dashboard.browsing import (
    DESKTOP,
    PHONE,
    SCREENS,
    WITHOUT_SCRIPTS,
    BrowserContexts,
    OpenPage,
    Screen,
    horizontal_overflow,
    screenshot,
)
from tests.dashboard.page_server import PageServer, serving_pages

CONFIG = """<meta name="htmx-config" content='{"allowEval": false, "includeIndicatorStyles": false}'>"""
HTMX = '<script src="/vendor/htmx.min.js" defer></script>'


@pytest.fixture
def page_server() -> Iterator[PageServer]:
    with serving_pages() as page_server:
        yield page_server


@pytest.fixture
def origin(page_server: PageServer) -> str:
    return page_server.url


def test_htmx_submits_a_form_and_inserts_part_of_the_response(page_server: PageServer, open_page: OpenPage) -> None:
    page_server.set_page(
        '<form hx-get="/found" hx-target="#list" hx-select="ul"><button>Look</button></form><div id=list></div>'
    )
    page_server.set_page("<ul><li>one</li></ul><p>no part</p>", path="/found")
    page_server.pages["/"] = page_server.pages["/"].replace("</head>", f"{CONFIG}{HTMX}</head>")
    page = open_page()
    page.goto("/")

    page.get_by_role("button", name="Look").click()

    expect(page.locator("#list")).to_have_text("one")


@pytest.mark.parametrize(
    ("body", "head", "message"),
    [
        ("<script>1</script>", "", "script-src-elem forbids inline"),
        ('<p style="color: red">red</p>', "", "style-src-attr forbids inline"),
        ("", HTMX, "style-src-elem forbids inline"),
        ('<p hx-trigger="click[true]" hx-get="/">x</p>', CONFIG.replace('"allowEval": false, ', "") + HTMX, "eval"),
        ('<img alt="" src="http://127.0.0.1:9/pixel.png">', "", "forbids http://127.0.0.1:9/pixel.png"),
        ('<a href="http://127.0.0.1:9/">elsewhere</a>', "", "another origin: http://127.0.0.1:9/"),
        ('<img alt="" src="/lost.png">', "", "404 for GET"),
    ],
)
def test_forbidden_page_actions_are_recorded(
    page_server: PageServer, browser: Browser, body: str, head: str, message: str
) -> None:
    page_server.set_page(body, head)
    contexts = BrowserContexts(browser, page_server.url, "wrong")
    page = contexts.open()
    page.goto("/")
    if page.get_by_role("link").count():
        page.get_by_role("link").click()

    for _ in range(100):
        if any(message in problem for problem in contexts.monitor.problems):
            break
        page.wait_for_timeout(20)
    assert any(message in problem for problem in contexts.close()), contexts.monitor.problems


def test_script_errors_are_recorded(page_server: PageServer, browser: Browser) -> None:
    page_server.set_page("")
    contexts = BrowserContexts(browser, page_server.url, "wrong")
    page = contexts.open()
    page.goto("/")
    page.evaluate("setTimeout(() => { throw new Error('of a script') })")
    page.evaluate("console.error('said by a script')")

    problems = contexts.close()

    assert ["of a script" in problems[0], "said by a script" in problems[1]] == [True, True], problems


def test_a_missing_page_is_not_recorded(page_server: PageServer, open_page: OpenPage) -> None:
    response = open_page().goto("/nowhere")

    assert response is not None
    assert response.status == 404


def test_accessibility_violations_are_found_under_the_policy(page_server: PageServer, open_page: OpenPage) -> None:
    page_server.set_page("<p>All is well.</p>")
    page = open_page()
    page.goto("/")
    check_accessibility(page)

    page_server.set_page("<button></button>")
    page.goto("/")

    with pytest.raises(AssertionError, match=r"button-name \(critical\)(?s:.*)<button></button>"):
        check_accessibility(page)


@pytest.mark.parametrize("screen", SCREENS, ids=lambda screen: screen.name)
def test_a_screen_sets_width_and_color_scheme(page_server: PageServer, open_page: OpenPage, screen: Screen) -> None:
    page_server.set_page("<p>A page.</p>")
    page = open_page(screen)
    page.goto("/")

    actual = page.evaluate("[innerWidth, matchMedia('(prefers-color-scheme: dark)').matches]")
    assert actual == [screen.width, screen.color_scheme == "dark"]
    assert horizontal_overflow(page) == 0


def test_horizontal_overflow_is_measured(page_server: PageServer, open_page: OpenPage) -> None:
    page_server.set_page(f"<pre>{'x' * 100}</pre>")
    page = open_page(PHONE)
    page.goto("/")

    assert horizontal_overflow(page) > 100


def test_a_screen_without_scripts_runs_no_scripts(page_server: PageServer, open_page: OpenPage) -> None:
    page_server.set_page("<p>A page.</p>", CONFIG + HTMX)
    kinds = []
    for screen in (DESKTOP, WITHOUT_SCRIPTS):
        page = open_page(screen)
        page.goto("/")
        kinds.append(page.evaluate("typeof htmx"))

    assert kinds == ["object", "undefined"]


def test_screenshots_are_saved_in_the_configured_directory(
    page_server: PageServer,
    open_page: OpenPage,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directory = tmp_path_factory.mktemp("drawn")
    page_server.set_page("<p>A page.</p>")
    page = open_page(DESKTOP)
    page.goto("/")
    screenshot(page, "not yet")
    monkeypatch.setenv("DASHBOARD_SCREENSHOTS", str(directory))

    screenshot(page, "a [page]")
    screenshot(page, "a [page]")

    expected = {f"a-page{number}-{screen}.png" for number in ("", "-2") for screen in ("desk", "night", "phone")}
    assert {path.name for path in directory.iterdir()} == expected
    assert page.viewport_size == {"width": DESKTOP.width, "height": 800}
