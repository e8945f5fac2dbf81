"""Code samples of receivers."""

from pathlib import Path

import pytest

from uplift_server.dashboard.snippets import FRAMEWORKS, receiver, snippet, variable_line

DOCUMENTATION = Path(__file__).parents[2] / "docs"


def documents(code: str) -> list[str]:
    """Return the pages of the documentation that contain a code block."""
    pages = (page.read_text(encoding="utf-8") for page in DOCUMENTATION.glob("*.md"))
    return [text for text in pages if f"```python\n{code}```" in text]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_documentation_contains_the_code_sample(framework: str) -> None:
    assert documents(snippet(framework))


@pytest.mark.parametrize("framework", [name for name in FRAMEWORKS if name != "python"])
def test_the_documentation_contains_the_command(framework: str) -> None:
    command = receiver(framework).command
    assert command is not None
    assert all(command in text for text in documents(snippet(framework)))


def test_the_secret_is_quoted_for_shells() -> None:
    assert variable_line("whsec_a/b+c=") == "export UPLIFT_WEBHOOK_SECRET=whsec_a/b+c="
    assert variable_line("a`b`'$c") == """export UPLIFT_WEBHOOK_SECRET='a`b`'"'"'$c'"""
    assert variable_line(None).startswith("export UPLIFT_WEBHOOK_SECRET=")
