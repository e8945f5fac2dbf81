"""The documentation matches the code: generated regions are current, and named objects exist."""

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import uplift_server
import uplift_webhooks
from uplift_server.api.documentation.documents import ADDRESSES
from uplift_server.core.deliveries.outcomes import Outcome

DASHBOARD_CODES: Final = {"code_wrong", "password_easy", "password_long", "password_short", "password_wrong", "taken"}
"""Field codes that the API never returns."""
_STALE: Final = """
import shutil, sys
from pathlib import Path
scripts, root, copy = sys.argv[1:]
sys.path.insert(0, scripts)
from docs_regions import stale_regions
shutil.copytree(Path(root, "docs"), Path(copy, "docs"))
shutil.copy(Path(root, "ARCHITECTURE.md"), copy)
page = Path(copy, "docs/outcomes.md")
before, found, after = page.read_text().partition("<!-- generated: timeout -->\\n")
page.write_text(before + found + "old" + after)
print(stale_regions(Path(copy), write=False))
print(stale_regions(Path(copy), write=True))
print(stale_regions(Path(copy), write=False))
"""
_SUDO: Final = """#!/bin/bash
echo "$@"
for each; do
    case $each in
        EnvironmentFile=/etc/*) echo "${each#*=}" ;;
        EnvironmentFile=*) cat "${each#*=}" ;;
    esac
done
exit 7
"""
"""Prints its arguments, the path of the server's settings, and the content of the other file with settings."""


def _document(root: Path, name: str) -> str:
    path = root / "docs" / name
    assert path.exists(), f"docs/{name} does not exist"
    return path.read_text(encoding="utf-8")


def test_generated_regions_are_current(root: Path) -> None:
    done = subprocess.run([root / "scripts/docs", "--check"], capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_stale_region_is_named_and_updated(root: Path, tmp_path: Path) -> None:
    program = [sys.executable, "-c", _STALE, root / "scripts", root, tmp_path]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.split("\n") == ["[('docs/outcomes.md', 'timeout')]"] * 2 + ["[]", ""]


def test_every_region_is_generated(root: Path) -> None:
    generated = (root / "scripts/docs_regions.py").read_text(encoding="utf-8")
    pages = [*root.glob("*.md"), *root.glob("docs/*.md")]
    found = [
        name for page in pages for name in re.findall(r"^<!-- generated: (.+) -->$", page.read_text(), re.MULTILINE)
    ]

    outcomes = {outcome.text for outcome in Outcome}
    assert len(found) > 10
    assert not [name for name in found if name not in outcomes and f'"{name}"' not in generated]


def test_every_field_code_is_described(root: Path) -> None:
    described = set(re.findall(r'^    "(\w+)":', (root / "scripts/docs_field_codes.py").read_text(), re.MULTILINE))
    used = set[str]()
    for package in ("core", "service", "api"):
        for path in (root / "server/src/uplift_server" / package).rglob("*.py"):
            used |= set(_field_codes(ast.parse(path.read_text(encoding="utf-8"))))

    assert used - described == DASHBOARD_CODES
    sources = (root / "server/src/uplift_server").rglob("*.py")
    assert not described - set(re.findall(r'"(\w+)"', "".join(path.read_text(encoding="utf-8") for path in sources)))


def _field_codes(tree: ast.Module) -> Iterator[str]:
    """Yield the codes of problems: the second argument of `Problem`, including both branches of a condition."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Problem":
            for constant in ast.walk(node.args[1]) if len(node.args) == 3 else ():
                if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                    yield constant.value


def test_every_outcome_has_a_section(root: Path) -> None:
    text = _document(root, "outcomes.md")

    assert not [outcome.text for outcome in Outcome if f"\n## `{outcome.text}`\n" not in text]


def test_every_url_rejection_is_in_the_addresses_page(root: Path) -> None:
    text = _document(root, "addresses.md")
    sources = [(root / f"server/src/uplift_server/core/http/{name}.py").read_text() for name in ("urls", "addresses")]
    codes = set(re.findall(r'"(url_[a-z]+|https_required|address_not_allowed)"', "".join(sources)))

    assert len(codes) == 8
    assert {code for code in codes if f"\n| `{code}` |" in text} == codes


def test_every_uplift_command_is_documented(root: Path) -> None:
    import typer

    text = _document(root, "uplift.md")
    command = typer.main.get_command(importlib.import_module("uplift_webhooks.cli.main").app)

    def names(group: Any, path: str) -> list[str]:
        inner = getattr(group, "commands", None)
        if inner is None:
            return [path]
        return [name for key, each in inner.items() if not each.hidden for name in names(each, f"{path} {key}")]

    found = names(command, "uplift")
    assert found
    assert not [name for name in found if not re.search(rf"{re.escape(name)}\b", text)]


def test_installed_extras_exist(root: Path) -> None:
    pages = [*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("*/README.md")]
    installs = [
        (page.name, found)
        for page in pages
        for found in re.findall(
            r"(receiver|server|uplift-webhooks|uplift-webhooks-server)\[([a-z,]+)\]", page.read_text()
        )
    ]
    extras = {}
    for name in ("receiver", "server"):
        project = tomllib.loads((root / name / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        extras[name] = extras[project["name"]] = set(project.get("optional-dependencies", {}))

    assert uplift_server.__version__ == uplift_webhooks.__version__
    assert installs
    assert not [
        (page, project, used) for page, (project, used) in installs if not {*used.split(",")} <= extras[project]
    ]


def test_the_latest_changelog_release_is_the_version_of_the_code(root: Path) -> None:
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[(.+?)\](.*)$", text, re.MULTILINE)

    assert headings[0] == ("Unreleased", "")
    assert headings[1][0] == uplift_server.__version__
    assert all(re.fullmatch(r" - \d{4}-\d{2}-\d{2}", date) for _, date in headings[1:])


def test_links_are_not_broken(root: Path) -> None:
    pages = [*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("*/README.md")]
    links = [
        (page, target.partition("#")[0])
        for page in pages
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
        if not re.match(r"[a-z]+:|#", target)
    ]
    assert links
    served = {*ADDRESSES, "/openapi.json"}
    assert not [
        (page.name, target)
        for page, target in links
        if (target not in served if target.startswith("/") else not (page.parent / target).exists())
    ]


def test_the_shell_function_passes_the_settings_of_the_caller(root: Path, tmp_path: Path) -> None:
    [function] = re.findall(r"```bash\n(uplift-server\(\).+?)```", _document(root, "deployment.md"), re.DOTALL)
    (tmp_path / "sudo").write_text(_SUDO)
    (tmp_path / "sudo").chmod(0o755)
    command = "UPLIFT_PORT=8421 UPLIFT_BRAND_NAME='Rapids Webhooks' uplift-server serve --role worker"
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path), "UPLIFT_OPERATOR_KEY": "op_1"}

    done = subprocess.run(
        ["bash", "-c", f"{function}\n{command}"], env=environ, capture_output=True, text=True, check=False
    )

    called, *settings = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (7, "")
    assert called.startswith("systemd-run ")
    assert called.endswith(" /opt/uplift/bin/uplift-server serve --role worker")
    assert "op_1" not in called
    # systemd reads the files in order, and the last value of a setting applies.
    assert settings[0] == "/etc/uplift/uplift.env"
    assert {*settings[1:]} == {
        "UPLIFT_PORT=8421", "UPLIFT_BRAND_NAME=Rapids Webhooks", "UPLIFT_OPERATOR_KEY=op_1"
    }  # fmt: skip
    assert [each.name for each in tmp_path.iterdir()] == ["sudo"]
