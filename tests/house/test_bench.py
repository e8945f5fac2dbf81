"""Every benchmark is documented, and unknown names are rejected. `scripts/test bench` runs the benchmarks."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _run(*command: str | Path, within_s: float) -> subprocess.CompletedProcess[str]:
    # Coverage must not slow down measured processes.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "COVERAGE_"))}
    return subprocess.run(
        [str(part) for part in command],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )


@pytest.fixture(scope="module")
def rows() -> list[str]:
    listed = _run(ROOT / "bench" / "run", "--list", within_s=100)
    assert listed.returncode == 0, listed.stderr
    return [line.split()[0] for line in listed.stdout.splitlines()]


def test_every_row_is_documented(rows: list[str]) -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE)) == set(rows)


def test_an_unknown_row_is_rejected_with_the_list_of_rows(rows: list[str]) -> None:
    run = _run(ROOT / "bench" / "run", "nonsense", within_s=20)
    assert run.returncode == 2
    assert all(row in run.stderr for row in rows)
