"""The receivers that pages show."""

from pathlib import Path

import pytest

from uplift_server.dashboard.snippets import FRAMEWORKS, receiver, snippet, variable_line

GUIDE = Path(__file__).parents[2] / "docs/guide.md"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_they_are_the_guides_which_its_tests_run(framework: str) -> None:
    assert f"```python\n{snippet(framework)}```" in GUIDE.read_text(encoding="utf-8")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_they_are_run_as_the_guide_says(framework: str) -> None:
    shown = receiver(framework)
    section = GUIDE.read_text(encoding="utf-8").partition(shown.code)[2].partition("\n#")[0]

    assert shown.command is None if framework == "python" else f"`{shown.command}`" in section


def test_a_shell_takes_the_secret_as_it_is() -> None:
    assert variable_line("whsec_a/b+c=") == "export UPLIFT_WEBHOOK_SECRET=whsec_a/b+c="
    assert variable_line("a`b`'$c") == """export UPLIFT_WEBHOOK_SECRET='a`b`'"'"'$c'"""
    assert variable_line(None).startswith("export UPLIFT_WEBHOOK_SECRET=")
