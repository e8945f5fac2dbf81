"""Every path and test that ARCHITECTURE.md names exists, and every package is described."""

import re
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "ARCHITECTURE.md"
SERVER = Path("server/src/uplift_server")
PACKAGES = sorted(path.name for path in (DOCUMENT.parent / SERVER).iterdir() if (path / "__init__.py").exists())
PREFIXES = "|".join([*PACKAGES, "bench", "docs", "receiver", "scripts", "server", "tests"])
# The pattern matches neither a part of a longer path nor a route such as /v1/events.
PATH = re.compile(rf"(?<![\w./-])(?:{PREFIXES})/[\w./-]*\w/?|(?<![\w./-])(?:{PREFIXES})/(?!\w)")


def named_paths() -> list[str]:
    """Return every path in the text, tables and diagrams."""
    return sorted(set(PATH.findall(DOCUMENT.read_text(encoding="utf-8"))))


def test_every_named_path_exists(root: Path) -> None:
    def exists(path: str) -> bool:
        found = root / SERVER / path if path.partition("/")[0] in PACKAGES else root / path
        return found.is_dir() if path.endswith("/") else found.exists()

    assert not [path for path in named_paths() if not exists(path)]


def test_every_package_is_described() -> None:
    source = DOCUMENT.parent / SERVER
    packages = {
        f"{init.parent.relative_to(source)}/"
        for parent in ("*", "core/*", "delivery/*", "delivery/sending/*")
        for init in source.glob(f"{parent}/__init__.py")
    }
    assert not packages - set(named_paths())
