"""ARCHITECTURE.md contains the current table of transitions."""

from .lifecycle_docs import DOCUMENT, replaced


def test_the_generated_part_is_current() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text == replaced(text), "run .venv/bin/python -m tests.house.lifecycle_docs"
