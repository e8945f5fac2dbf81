"""The documentation of settings and commands matches the program."""

import re
from pathlib import Path

import pytest

from uplift_server.config import SETTINGS, load
from uplift_webhooks.cli.kit.errors import ExitCode

DOCS = Path(__file__).parents[2] / "docs"


def test_the_documented_settings_match_the_program() -> None:
    rows = re.findall(r"^\| (`UPLIFT_.*) \|$", (DOCS / "configuration.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [
        f"`{setting.name}` | {setting.kind} | "
        f"{f'`{setting.default}`' if setting.default else setting.derived or 'none'} | {setting.help}"
        for setting in SETTINGS
    ]


def test_the_example_file_loads(tmp_path: Path) -> None:
    [example] = re.findall(r"```toml\n(.*?)```", (DOCS / "configuration.md").read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path / "uplift.toml"
    path.write_text(example, encoding="utf-8")
    assert load({}, path).public_url == "https://hooks.example.com"


@pytest.mark.parametrize("code", ExitCode)
def test_every_exit_code_is_documented(code: ExitCode) -> None:
    assert f"\n| {code.value} | " in (DOCS / "cli.md").read_text(encoding="utf-8")
