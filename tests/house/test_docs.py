"""What a reader can set, call or meet is documented; these tests name what is not."""

import ast
import base64
import importlib
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import uplift_server
import uplift_webhooks
from uplift_server.config import OTHER_TOOLS, SETTINGS
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.endpoint_settings import ENDPOINT_SETTINGS
from uplift_server.core.events.catalog import EVENT_TYPES
from uplift_server.core.http.address_ranges import BLOCKS, Reach
from uplift_server.core.people.audit import ACTIONS
from uplift_server.observe.metrics import METRICS, PREFIX


def _document(root: Path, name: str) -> str:
    path = root / "docs" / name
    assert path.exists(), f"docs/{name} has not been written"
    return path.read_text(encoding="utf-8")


def test_every_setting_is_in_the_configuration_page(root: Path) -> None:
    text = _document(root, "configuration.md")

    assert not [setting.name for setting in SETTINGS if f"`{setting.name}`" not in text]


def test_the_configuration_page_names_no_setting_that_does_not_exist(root: Path) -> None:
    known = {setting.name for setting in SETTINGS} | set(OTHER_TOOLS)

    assert not set(re.findall(r"`(UPLIFT_[A-Z_]+)`", _document(root, "configuration.md"))) - known


def test_every_route_is_in_the_api_page(root: Path) -> None:
    document: dict[str, Any] = importlib.import_module("uplift_server.api").openapi_document()
    text = _document(root, "api.md")
    methods = {"get", "post", "put", "patch", "delete"}

    routes = [f"{method.upper()} {path}" for path, item in document["paths"].items() for method in methods & set(item)]
    assert routes
    # The page may name a path's parameters as it likes.
    documented = re.sub(r"\{[^}]*\}", "{}", text)
    assert not sorted(route for route in routes if re.sub(r"\{[^}]*\}", "{}", route) not in documented)


def test_the_handshake_of_the_api_page_is_one_that_servers_take(root: Path) -> None:
    """RFC 6455, section 4.1: the key is 16 bytes in base64."""
    [key] = re.findall(r"Sec-WebSocket-Key: ([^']*)'", _document(root, "api.md"))

    assert len(base64.b64decode(key, validate=True)) == 16


def test_every_action_of_the_audit_log_is_in_the_api_page_with_its_sentence(root: Path) -> None:
    text = _document(root, "api.md")

    assert not [name for name, sentence in ACTIONS.items() if f"| `{name}` | {sentence} |" not in text]


def test_the_table_of_endpoint_settings_in_the_api_page_matches_the_definitions(root: Path) -> None:
    rows = [f"| `{each.name}` | {each.bounds} | {each.default} | {each.help} |" for each in ENDPOINT_SETTINGS]
    section = _document(root, "api.md").partition("#### Endpoint settings\n")[2].partition("\n#")[0]

    assert [line for line in section.splitlines() if line.startswith("| `")] == rows


def test_the_metrics_of_the_monitoring_page_are_those_there_are(root: Path) -> None:
    rows = [
        f"| `{metric.name}` | {metric.kind} | {f'`{metric.label}`' if metric.label else ''} |"
        f" {metric.across_processes} | {metric.help} |"
        for metric in METRICS
    ]
    text = _document(root, "monitoring.md")

    assert [line for line in text.splitlines() if line.startswith(f"| `{PREFIX}")] == rows


def test_every_outcome_is_in_the_outcomes_page(root: Path) -> None:
    text = _document(root, "outcomes.md")

    assert not [outcome.text for outcome in Outcome if f"\n## `{outcome.text}`\n" not in text]


def test_the_outcomes_page_says_what_the_product_says(root: Path) -> None:
    text = " ".join(_document(root, "outcomes.md").split())
    source = (root / "server/src/uplift_server/core/deliveries/outcomes.py").read_text(encoding="utf-8")
    calls = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Explanation"
    ]
    # Whatever is put into a sentence later, in braces or an f-string, stands between parts that do not change.
    parts = [
        part
        for call in calls
        for argument in call.args
        for constant in ast.walk(argument)
        if isinstance(constant, ast.Constant) and isinstance(constant.value, str)
        for part in re.split(r"\{[a-z_]+\}", constant.value)
    ]

    assert len(parts) > len(Outcome)
    assert not [part for part in parts if part.strip() not in text]


def test_the_guide_has_a_remedy_for_every_outcome_that_is_a_failure(root: Path) -> None:
    text = _document(root, "guide.md")

    failures = {outcome.text for outcome in Outcome} - {"delivered"}
    assert set(re.findall(r"^\| \[`(\w+)`\]\(outcomes\.md#\1\) \| \S", text, re.MULTILINE)) == failures


def test_the_guide_shows_the_catalog(root: Path) -> None:
    shown = re.findall(
        r"\n### `([a-z._]+)`\n\n([^\n]+)\n\n```json\n(.*?)```\n.*?```json\n(.*?)```",
        _document(root, "guide.md").partition("## The catalog")[2],
        re.DOTALL,
    )

    assert [
        (name, description, json.loads(example), json.loads(schema)) for name, description, example, schema in shown
    ] == [(each.name, each.description, each.example, each.schema) for each in EVENT_TYPES]


def test_the_guides_contents_lead_to_its_sections(root: Path) -> None:
    text = _document(root, "guide.md")
    written = re.findall(r"^##+ ([\w' #]+)$", text, re.MULTILINE)
    headings = {heading.lower().replace("#", "").replace(" ", "-") for heading in written}

    assert len(headings) > 12
    assert not set(re.findall(r"\]\(#([^)]+)\)", text)) - headings


def test_every_block_of_addresses_is_in_the_addresses_page(root: Path) -> None:
    reached = {
        Reach.PUBLIC: "allowed, over https",
        Reach.PRIVATE: "where private networks are allowed",
        Reach.FORBIDDEN: "never",
        Reach.EMBEDDED: "as the IPv4 addresses inside it",
    }
    rows = {f"| `{each.network}` | {each.name} | {each.source} | {reached[each.reach]} |" for each in BLOCKS}
    text = _document(root, "addresses.md")

    assert {line for line in text.splitlines() if re.match(r"\| `[0-9a-f:.]+/", line)} == rows


def test_every_refusal_of_a_url_is_in_the_addresses_page(root: Path) -> None:
    text = _document(root, "addresses.md")
    sources = [(root / f"server/src/uplift_server/core/http/{name}.py").read_text() for name in ("urls", "addresses")]
    codes = set(re.findall(r'"(url_[a-z]+|https_required|address_not_allowed)"', "".join(sources)))

    assert len(codes) == 8
    assert {code for code in codes if f"\n| `{code}` |" in text} == codes


@pytest.mark.parametrize(
    ("program", "main", "page"),
    [
        ("uplift-server", "uplift_server.cli.main", "cli.md"),
        ("uplift", "uplift_webhooks.cli.main", "uplift.md"),
    ],
)
def test_every_command_is_in_its_page(program: str, main: str, page: str, root: Path) -> None:
    import typer

    text = _document(root, page)
    command = typer.main.get_command(importlib.import_module(main).app)

    def names(group: Any, path: str) -> list[str]:
        inner = getattr(group, "commands", None)
        if inner is None:
            return [path]
        return [name for key, each in inner.items() if not each.hidden for name in names(each, f"{path} {key}")]

    found = names(command, program)
    assert found
    assert not [name for name in found if not re.search(rf"{re.escape(name)}\b", text)]


def test_what_readers_are_told_to_install_is_there(root: Path) -> None:
    """No index has the packages yet: what is installed is a directory of the checkout, or a wheel made of one."""
    pages = [*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("*/README.md")]
    sources = (root / "receiver/src").rglob("*.py")
    told = [
        (path.name, argument)
        for path in (*pages, *sources)
        for arguments in re.findall(r"pip install ([^#`\n]*)", path.read_text(encoding="utf-8"))
        for argument in re.findall(r"[^\s'\"]+", arguments)[: 2 if "./server" in arguments else 1]
    ]
    projects = {
        name: tomllib.loads((root / name / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for name in ("receiver", "server")
    }
    wheel = f"./dist/uplift_webhooks-{uplift_webhooks.__version__}-py3-none-any.whl"

    assert uplift_server.__version__ == uplift_webhooks.__version__
    assert len(told) > 5
    for page, argument in told:
        found = re.fullmatch(r"(\./[\w./-]+?)(?:\[([a-z,]+)\])?", argument)
        assert found, (page, argument)
        project = projects["receiver" if found[1] == wheel else found[1].removeprefix("./")]
        assert {*(found[2] or "").split(",")} - {""} <= {*project.get("optional-dependencies", {})}, (page, argument)


def test_the_changelog_has_the_version_of_the_code_as_its_latest_release(root: Path) -> None:
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[(.+?)\](.*)$", text, re.MULTILINE)

    assert headings[0] == ("Unreleased", "")
    assert headings[1][0] == uplift_server.__version__
    assert all(re.fullmatch(r" - \d{4}-\d{2}-\d{2}", date) for _, date in headings[1:])


def test_links_lead_somewhere(root: Path) -> None:
    pages = [*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("*/README.md")]
    links = [
        (page, target)
        for page in pages
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
        if not re.match(r"[a-z]+:|#", target)
    ]
    assert links
    assert not [(page.name, target) for page, target in links if not (page.parent / target.partition("#")[0]).exists()]
