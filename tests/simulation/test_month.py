"""Short random months of the whole engine. `scripts/simulate` plays longer ones.

To play more of them, set UPLIFT_TEST_SIMULATION_SEEDS to the number of seeds with one process.
"""

import itertools
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from tests.engines import Engine, Place

from .command import quiet
from .month import Pace, Profile, Result, play
from .mutations import MUTATIONS

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).resolve().parents[2]


def seeds(count: int, *, is_clustered: bool) -> list[int]:
    """Return the first seeds with several processes, or with one."""
    drawn = (seed for seed in itertools.count() if Profile.drawn(random.Random(seed)).is_clustered is is_clustered)
    return list(itertools.islice(drawn, count))


SEEDS = int(os.environ.get("UPLIFT_TEST_SIMULATION_SEEDS", "160"))
PARTS = 8
DAYS = 2
PLAYED = [*seeds(SEEDS, is_clustered=False), *seeds(SEEDS // 20, is_clustered=True)]
"""The seeds to play. Few of them have a cluster, because a month of a cluster takes ten times as long."""
CALM_SEEDS = seeds(6, is_clustered=False)
CALM_DAYS = 30
MUTATION_SEEDS = seeds(18, is_clustered=False)
MUTATION_DAYS = 10
PLAY = """
from tests.simulation.command import quiet
from tests.simulation.month import play

quiet()
print(play({seed}, {days}, with_digest=True).digest)
"""
POSTGRES_SEEDS = 2
POSTGRES_DAYS = 2


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    quiet()
    yield
    structlog.reset_defaults()


def assert_kept(result: Result) -> None:
    """Fail with the trace of a violation."""
    trace = "\n".join(result.trace[-30:])
    assert result.violation is None, f"seed {result.seed}: {result.violation}\n{result.profile}\n{trace}"


@pytest.mark.parametrize("part", range(PARTS))
def test_every_promise_holds_in_random_months(part: int) -> None:
    for seed in PLAYED[part::PARTS]:
        assert_kept(play(seed, DAYS))


@pytest.mark.parametrize("seed", CALM_SEEDS)
def test_every_promise_holds_in_calm_months(seed: int) -> None:
    assert_kept(play(seed, CALM_DAYS, pace=Pace.CALM))


@pytest.mark.parametrize("seed", range(POSTGRES_SEEDS))
def test_every_promise_holds_on_a_database_server(seed: int, engine: Engine, place: Place) -> None:
    if engine.name == "sqlite":
        pytest.skip("the tests above use SQLite")
    assert_kept(play(seed, POSTGRES_DAYS, place=place))


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_engine_is_found(name: str) -> None:
    broken, expected = MUTATIONS[name]
    with broken() as mutation:
        results = (play(seed, MUTATION_DAYS, mutation=mutation) for seed in MUTATION_SEEDS)
        found = next((each.violation for each in results if each.violation is not None), None)
    assert found is not None, "the simulation does not find the defect"
    assert re.search(expected, found)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_seed_always_plays_the_same_month(seed: int) -> None:
    """In two processes with different hashes of strings, all requests and rows are the same."""
    digests = set()
    for hash_seed in ("1", "2"):
        environ = {**os.environ, "PYTHONHASHSEED": hash_seed}
        played = subprocess.run(
            [sys.executable, "-c", PLAY.format(seed=seed, days=DAYS)],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(played.stdout)
    assert len(digests) == 1
    assert len(digests.pop().strip()) == 64
