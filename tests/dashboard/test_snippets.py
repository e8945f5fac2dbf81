"""Code samples of receivers."""

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


@pytest.mark.parametrize("framework", [name for name in FRAMEWORKS if name != "python"])
def test_the_documentation_has_the_same_command(framework: str) -> None:
    command = receiver(framework).command
    assert command is not None
    assert all(command in text for text in documents(snippet(framework)))


def test_a_shell_takes_the_secret_as_it_is() -> None:
    assert variable_line("whsec_a/b+c=") == "export UPLIFT_WEBHOOK_SECRET=whsec_a/b+c="
    assert variable_line("a`b`'$c") == """export UPLIFT_WEBHOOK_SECRET='a`b`'"'"'$c'"""
    assert variable_line(None).startswith("export UPLIFT_WEBHOOK_SECRET=")
