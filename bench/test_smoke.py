"""Tests for `scripts/test bench`: every row runs, and its results can be drawn."""

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
_IN_VALGRIND = "instructions"


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


def test_instructions_are_counted() -> None:
    run = _run(ROOT / "bench" / "run", _IN_VALGRIND, "--smoke", within_s=300)

    assert run.returncode == 0, run.stderr + run.stdout[-2000:]
    record = json.loads(run.stdout.splitlines()[-1])
    assert record["figures"]["instructions of this build"]["value"] > 100_000
    assert record["figures"]["lost"]["value"] == 0


@pytest.mark.timeout(900)  # every row starts its own servers, and a new machine has cold caches
def test_every_row_runs_and_can_be_drawn(tmp_path: Path) -> None:
    listed = _run(ROOT / "bench" / "run", "--list", within_s=100)
    rows = [line.split()[0] for line in listed.stdout.splitlines()]
    assert rows, listed.stderr
    rows.remove(_IN_VALGRIND)
    results = tmp_path / "results.jsonl"

    run = _run(ROOT / "bench" / "run", *rows, "--smoke", "--json", results, within_s=900)

    assert run.returncode == 0, run.stderr + run.stdout[-20_000:]
    records = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    assert sorted(record["row"] for record in records) == sorted(rows)
    for record in records:
        assert record["smoke"]
        assert record["figures"]
        assert {"cpu", "cores", "memory", "kernel", "filesystem"} <= record["machine"].keys()
        assert {"python", "sqlite", "uvloop", "httptools", "uplift"} <= record["versions"].keys()
        for name in ("lost", "lost for healthy endpoints"):
            assert record["figures"].get(name, {"value": 0})["value"] == 0, record

    drawn = _run(ROOT / "bench" / "draw", results, "--smoke", "--out", tmp_path, within_s=20)

    assert drawn.returncode == 0, drawn.stderr
    assert {file.name for file in tmp_path.glob("*.svg")} == {"benchmarks-latency.svg", "benchmarks-throughput.svg"}
