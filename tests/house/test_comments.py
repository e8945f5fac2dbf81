"""Comments contain no plans, and each `noqa` and `type: ignore` names the check that it disables."""

import re
import tokenize
from pathlib import Path

import pytest

PYTHON = ("receiver", "server", "tests", "bench")
TODO_MARKERS = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
BARE_IGNORE = re.compile(r"#\s*type:\s*ignore(?!\[)")
BARE_NOQA = re.compile(r"#\s*noqa(?!:\s*[A-Z]+[0-9]+)", re.IGNORECASE)


def _comments(path: Path) -> list[tuple[int, str]]:
    with path.open("rb") as file:
        return [
            (token.start[0], token.string)
            for token in tokenize.tokenize(file.readline)
            if token.type == tokenize.COMMENT
        ]


@pytest.mark.parametrize("package", PYTHON)
def test_python_comments_have_no_todo_and_no_bare_noqa(package: str, root: Path) -> None:
    wrong = [
        f"{path.relative_to(root)}:{line}: {comment}"
        for path in sorted((root / package).rglob("*.py"))
        for line, comment in _comments(path)
        if TODO_MARKERS.search(comment) or BARE_IGNORE.search(comment) or BARE_NOQA.search(comment)
    ]
    assert not wrong


def test_other_files_contain_no_todo(root: Path) -> None:
    files = [
        *root.glob("*.md"),
        *root.glob("*.toml"),
        *root.glob("docs/**/*.md"),
        *root.glob("scripts/*"),
        *root.glob("server/**/*.sql"),
    ]
    wrong = [
        f"{path.relative_to(root)}:{number}: {line}"
        for path in files
        if path.is_file()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if TODO_MARKERS.search(line)
    ]
    assert not wrong
