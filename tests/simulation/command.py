"""The command `scripts/simulate`: plays many seeds in several processes."""

import argparse
import contextlib
import logging
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import NoReturn

import structlog
from tests import engines

from .month import Pace, Result, play

PROGRESS_EVERY_S = 10
SEEDS_QUEUED_PER_JOB = 4


def quiet() -> None:
    """Log nothing: faults cause thousands of warnings."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL), processors=[_drop])


def _drop(*_: object) -> NoReturn:
    raise structlog.DropEvent


def start_job(engine: str) -> None:
    """Prepare a process that plays seeds."""
    quiet()
    engines.choose(engine)


def play_on(seed: int, days: int, pace: Pace, engine: str) -> Result:
    """Play a seed on an engine. An exception becomes a violation with its traceback."""
    try:
        if engine == "sqlite":
            return play(seed, days, pace=pace)
        with tempfile.TemporaryDirectory() as folder:
            try:
                return play(seed, days, pace=pace, place=engines.chosen().place(Path(folder)))
            finally:
                engines.chosen().clear(Path(folder))
    except Exception:
        return Result(seed, traceback.format_exc(), [], "", 0.0)


def _line(seed: int, options: argparse.Namespace) -> str:
    """Return the line of a finished seed in the file of `--done`."""
    return f"{options.engine} {options.pace} {options.days} {seed}"


def _seeds(options: argparse.Namespace) -> Iterator[int]:
    done: Path | None = options.done
    finished = set(done.read_text().splitlines()) if done is not None and done.exists() else set()
    first: int = options.first
    return (seed for seed in range(first, first + options.seeds) if _line(seed, options) not in finished)


def main(description: str) -> int:
    """Play the seeds that the command line selects. Return the exit code: 1 after a violation."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seeds", type=int, default=100, metavar="N", help="the number of seeds (default: 100)")
    parser.add_argument("--from", type=int, default=0, dest="first", metavar="SEED", help="the first seed (default: 0)")
    parser.add_argument("--days", type=int, default=30, help="the length of a month in days (default: 30)")
    parser.add_argument(
        "--pace", type=Pace, choices=list(Pace), default=Pace.BUSY, help="how much happens on a day (default: busy)"
    )
    parser.add_argument("--engine", choices=("sqlite", "postgresql"), default="sqlite", help="the database engine")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="the number of processes (default: 2)")
    parser.add_argument("--done", type=Path, metavar="FILE", help="file of finished seeds, to continue a run later")
    options = parser.parse_args()

    seeds = _seeds(options)
    began = shown_at = time.monotonic()
    counts: Counter[str] = Counter()
    violations = played = 0
    with contextlib.ExitStack() as stack:
        log = None if options.done is None else stack.enter_context(options.done.open("a"))
        # Without a fork, a job shares no connection with this process.
        pool = stack.enter_context(
            ProcessPoolExecutor(
                options.jobs, mp_context=get_context("spawn"), initializer=start_job, initargs=(options.engine,)
            )
        )
        how = (options.days, options.pace, options.engine)
        pending = [pool.submit(play_on, seed, *how) for seed in islice(seeds, options.jobs * SEEDS_QUEUED_PER_JOB)]
        while pending:
            result = pending.pop(0).result()
            pending += [pool.submit(play_on, seed, *how) for seed in islice(seeds, 1)]
            played += 1
            counts.update(result.counts)
            if result.violation is not None:
                violations += 1
                show(result, options)
            elif log is not None:
                log.write(f"{_line(result.seed, options)}\n")
                log.flush()
            if time.monotonic() - shown_at >= PROGRESS_EVERY_S:
                shown_at = time.monotonic()
                each_s = (shown_at - began) / played
                print(f"{played} seeds, {violations} violations, {each_s:.2f} s per seed", flush=True)
    print(
        f"{played} seeds of {options.days} {options.pace} days in {time.monotonic() - began:.0f} s:"
        f" {counts['events']} events, {counts['requests']} requests, {counts['duplicates']} duplicates after faults,"
        f" {counts['disabled']} endpoints disabled, {violations} violations"
    )
    return int(violations > 0)


def show(result: Result, options: argparse.Namespace) -> None:
    """Print a violation with the end of its trace."""
    print(f"\nseed {result.seed}: {result.violation}\n  {result.profile}")
    for line in result.trace[-30:]:
        print(f"  {line}")
    how = f"--days {options.days} --pace {options.pace} --engine {options.engine}"
    print(f"  Repeat it with: scripts/simulate --from {result.seed} --seeds 1 {how}", flush=True)
    sys.stdout.flush()
