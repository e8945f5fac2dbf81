"""Vendored scripts of the dashboard: unchanged files, with their licenses."""

import hashlib
import re
from pathlib import Path

VENDORED = Path("server/src/uplift_server/dashboard/static/vendor")
ROW = re.compile(
    r"^\| `([^`]+)` \| `([^`]+)` \| ([0-9.]+) \| `[^`]+` \| \S+ \(`([^`]+)`\) \| `([0-9a-f]{64})` \|$", re.MULTILINE
)


def test_vendored_files_match_the_table(root: Path) -> None:
    rows = ROW.findall((root / VENDORED / "README.md").read_text(encoding="utf-8"))
    digests = {name: digest for name, _, _, _, digest in rows}

    scripts = {path.name for path in (root / VENDORED).iterdir() if path.suffix == ".js"}
    assert scripts == set(digests)
    assert {name: hashlib.sha256((root / VENDORED / name).read_bytes()).hexdigest() for name in scripts} == digests


def test_every_vendored_file_has_a_license(root: Path) -> None:
    rows = ROW.findall((root / VENDORED / "README.md").read_text(encoding="utf-8"))
    licenses = {license_name for _, _, _, license_name, _ in rows}

    assert licenses == {path.name for path in (root / VENDORED).iterdir() if path.suffix == ".LICENSE"}
    assert all("Permission to use, copy" in (root / VENDORED / name).read_text(encoding="utf-8") for name in licenses)


def test_htmx_has_the_version_of_the_table(root: Path) -> None:
    [version] = [row[2] for row in ROW.findall((root / VENDORED / "README.md").read_text()) if row[1] == "htmx.org"]

    assert f'version:"{version}"' in (root / VENDORED / "htmx.min.js").read_text(encoding="utf-8")
