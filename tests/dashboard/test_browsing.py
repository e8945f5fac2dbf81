"""The watched browser reports violations, and the vendored scripts cause none."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect
from tests.dashboard.accessibility import check_accessibility
from tests.dashboard.browsing import DESK, LOOKS, PHONE, WITHOUT_SCRIPTS, Desk, Look, OpenPage, screenshot, sideways
from tests.dashboard.stage import Stage, staged

CONFIG = """<meta name="htmx-config" content='{"allowEval": false, "includeIndicatorStyles": false}'>"""
HTMX = '<script src="/vendor/htmx.min.js" defer></script><script src="/vendor/htmx-ext-sse.min.js" defer></script>'


@pytest.fixture
def stage() -> Iterator[Stage]:
    with staged() as stage:
        yield stage


@pytest.fixture
def origin(stage: Stage) -> str:
    return stage.url


def _live(number: int) -> str:
    return f'<p id="live" hx-get="/" hx-select="#live" hx-swap="outerHTML" hx-trigger="sse:change">number {number}</p>'


def test_htmx_updates_a_region_under_a_strict_policy(stage: Stage, open_page: OpenPage) -> None:
    stage.show(f'<div hx-ext="sse" sse-connect="/live">{_live(1)}</div>', CONFIG + HTMX)
    page = open_page()
    page.goto("/")
    expect(page.locator("#live")).to_have_text("number 1")

    stage.show(f'<div hx-ext="sse" sse-connect="/live">{_live(2)}</div>', CONFIG + HTMX)
    stage.said.set()

    expect(page.locator("#live")).to_have_text("number 2")
    assert page.locator("#live").count() == 1


def test_htmx_submits_a_form_and_inserts_part_of_the_response(stage: Stage, open_page: OpenPage) -> None:
    stage.show('<form hx-get="/found" hx-target="#list" hx-select="ul"><button>Look</button></form><div id=list></div>')
    stage.show("<ul><li>one</li></ul><p>no part</p>", path="/found")
    stage.pages["/"] = stage.pages["/"].replace("</head>", f"{CONFIG}{HTMX}</head>")
    page = open_page()
    page.goto("/")

    page.get_by_role("button", name="Look").click()

    expect(page.locator("#list")).to_have_text("one")


@pytest.mark.parametrize(
    ("body", "head", "told"),
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
def test_forbidden_page_actions_are_recorded(stage: Stage, browser: Browser, body: str, head: str, told: str) -> None:
    stage.show(body, head)
    desk = Desk(browser, stage.url, "wrong")
    page = desk.open()
    page.goto("/")
    if page.get_by_role("link").count():
        page.get_by_role("link").click()

    for _ in range(100):
        if any(told in problem for problem in desk.watch.problems):
            break
        page.wait_for_timeout(20)
    assert any(told in problem for problem in desk.leave()), desk.watch.problems


def test_script_errors_are_recorded(stage: Stage, browser: Browser) -> None:
    stage.show("")
    desk = Desk(browser, stage.url, "wrong")
    page = desk.open()
    page.goto("/")
    page.evaluate("setTimeout(() => { throw new Error('of a script') })")
    page.evaluate("console.error('said by a script')")

    problems = desk.leave()

    assert ["of a script" in problems[0], "said by a script" in problems[1]] == [True, True], problems


def test_a_missing_page_is_not_recorded(stage: Stage, open_page: OpenPage) -> None:
    answer = open_page().goto("/nowhere")

    assert answer is not None
    assert answer.status == 404


def test_accessibility_violations_are_found_under_the_policy(stage: Stage, open_page: OpenPage) -> None:
    stage.show("<p>All is well.</p>")
    page = open_page()
    page.goto("/")
    check_accessibility(page)

    stage.show("<button></button>")
    page.goto("/")

    with pytest.raises(AssertionError, match=r"button-name \(critical\)(?s:.*)<button></button>"):
        check_accessibility(page)


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.name)
def test_a_screen_sets_width_and_color_scheme(stage: Stage, open_page: OpenPage, look: Look) -> None:
    stage.show("<p>A page.</p>")
    page = open_page(look)
    page.goto("/")

    seen = page.evaluate("[innerWidth, matchMedia('(prefers-color-scheme: dark)').matches]")
    assert seen == [look.width, look.colours == "dark"]
    assert sideways(page) == 0


def test_horizontal_overflow_is_measured(stage: Stage, open_page: OpenPage) -> None:
    stage.show(f"<pre>{'x' * 100}</pre>")
    page = open_page(PHONE)
    page.goto("/")

    assert sideways(page) > 100


def test_a_screen_without_scripts_runs_no_scripts(stage: Stage, open_page: OpenPage) -> None:
    stage.show("<p>A page.</p>", CONFIG + HTMX)
    kinds = []
    for look in (DESK, WITHOUT_SCRIPTS):
        page = open_page(look)
        page.goto("/")
        kinds.append(page.evaluate("typeof htmx"))

    assert kinds == ["object", "undefined"]


def test_screenshots_are_saved_in_the_configured_directory(
    stage: Stage, open_page: OpenPage, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path_factory.mktemp("drawn")
    stage.show("<p>A page.</p>")
    page = open_page(DESK)
    page.goto("/")
    screenshot(page, "not yet")
    monkeypatch.setenv("DASHBOARD_SCREENSHOTS", str(directory))

    screenshot(page, "a [page]")
    screenshot(page, "a [page]")

    expected = {f"a-page{number}-{look}.png" for number in ("", "-2") for look in ("desk", "night", "phone")}
    assert {path.name for path in directory.iterdir()} == expected
    assert page.viewport_size == {"width": DESK.width, "height": 800}
