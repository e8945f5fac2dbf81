"""ARCHITECTURE.md speaks of what exists: every path and every test it names."""

import re
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "ARCHITECTURE.md"
SERVER = Path("server/src/uplift_server")
ROOMS = sorted(path.name for path in (DOCUMENT.parent / SERVER).iterdir() if (path / "__init__.py").exists())
BEGINNINGS = "|".join([*ROOMS, "bench", "docs", "receiver", "scripts", "server", "tests"])
# Not within a longer path, nor a route such as /v1/events.
PATH = re.compile(rf"(?<![\w./-])(?:{BEGINNINGS})/[\w./-]*\w/?|(?<![\w./-])(?:{BEGINNINGS})/(?!\w)")


def named_paths() -> list[str]:
    """Every path in the text, tables and diagrams."""
    return sorted(set(PATH.findall(DOCUMENT.read_text(encoding="utf-8"))))


def test_every_path_named_exists(root: Path) -> None:
    def exists(path: str) -> bool:
        found = root / SERVER / path if path.partition("/")[0] in ROOMS else root / path
        return found.is_dir() if path.endswith("/") else found.exists()

    assert not [path for path in named_paths() if not exists(path)]


def test_every_room_is_on_the_map() -> None:
    assert not {f"{room}/" for room in ROOMS} - set(named_paths())


def test_every_test_named_exists(root: Path) -> None:
    named = re.findall(r"`(tests/[\w/.]+)(?:::| \(`)(\w+)", DOCUMENT.read_text(encoding="utf-8"))
    assert named
    assert not [f"{path}::{name}" for path, name in named if f"def {name}(" not in (root / path).read_text("utf-8")]


def test_every_table_and_index_named_exists(root: Path) -> None:
    """And every one that exists is named."""
    parts = sorted((root / SERVER / "store").glob("schema*.py"))
    schema = "\n".join(part.read_text(encoding="utf-8") for part in parts)
    names = set(re.findall(r"sa\.(?:Table|Index)\(\s*\"(\w+)\"", schema))
    text = DOCUMENT.read_text(encoding="utf-8").partition("## What the database holds")[2].partition("\n## ")[0]
    assert names
    assert set(re.findall(r"`([a-z_]+)`", text)) == names
