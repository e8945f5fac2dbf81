"""The command line of the benchmarks: `bench/run ROW`, `bench/run all`, `bench/run --list`, `bench/run --smoke`."""

import argparse
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from bench.machine import filesystem
from bench.options import Options
from bench.progress import console
from bench.report import show
from bench.rows import ROWS
from bench.server import ServerFailed

# Do not use /tmp, which is in memory on many systems.
_DIRECTORY: Final = Path("/var/tmp")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench/run",
        description="Measure the performance of Uplift Webhooks. Each row of the results is one benchmark.",
        epilog="Benchmarks use the loopback interface and a temporary directory, which they remove at the end.",
    )
    parser.add_argument("row", nargs="*", help="rows to measure, or all", metavar="ROW")
    parser.add_argument("--list", action="store_true", help="list the rows with their durations")
    parser.add_argument("--smoke", action="store_true", help="check that the rows (default: all) work, with tiny sizes")
    parser.add_argument(
        "--secs", type=float, help="duration of each measurement in seconds (default: depends on the row)"
    )
    parser.add_argument(
        "--rate", type=float, help="load of rows at half load in events/s (default: half of the measured maximum)"
    )
    parser.add_argument("--connections", type=int, default=64, help="connections at full load (default: 64)")
    parser.add_argument("--endpoints", type=int, default=20, help="endpoints in most rows (default: 20)")
    parser.add_argument("--waiting", type=int, default=1_000_000, help="waiting deliveries (default: 1,000,000)")
    parser.add_argument(
        "--kills", type=int, default=50, help="kills in the rows kill, kill-fleet and stream-kill (default: 50)"
    )
    parser.add_argument("--seed", type=int, help="seed of the same rows (default: random; the row prints it)")
    parser.add_argument(
        "--dir", type=Path, default=_DIRECTORY, help=f"directory on the disk to measure (default: {_DIRECTORY})"
    )
    parser.add_argument("--server", type=Path, help="path of another uplift-server to measure, such as an older build")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append one line of JSON for each row to this file")
    return parser


def main() -> int:
    """Run the chosen rows. Return the exit code, which is 0 if all rows succeeded."""
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.list:
        for row in ROWS:
            print(f"{row.name:<15} {row.title} (about {row.usual_secs:g} s)")
        return 0
    names = [row.name for row in ROWS]
    if arguments.row == ["all"] or (arguments.smoke and not arguments.row):
        arguments.row = names
    unknown = [name for name in arguments.row if name not in names]
    if unknown or not arguments.row:
        parser.error((f"unknown row {unknown[0]}. " if unknown else "") + f"Choose from: {', '.join(names)}, all")
    if filesystem(arguments.dir.resolve()) == "tmpfs":
        parser.error(f"{arguments.dir} is in memory, so commits reach no disk. Choose a directory on a disk with --dir")
    options = Options(
        directory=arguments.dir.resolve(),
        secs=arguments.secs,
        smoke=arguments.smoke,
        rate=arguments.rate,
        connections=arguments.connections,
        endpoints=arguments.endpoints,
        waiting=arguments.waiting,
        kills=arguments.kills,
        seed=random.randrange(1_000_000) if arguments.seed is None else arguments.seed,
        server=arguments.server,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    failed = []
    for row in ROWS:
        if row.name not in arguments.row:
            continue
        try:
            show(row.measure(row, options), options, arguments.json)
        except (ServerFailed, OSError, RuntimeError, subprocess.SubprocessError) as error:
            console.print(f"{row.name} failed: {error}", style="red", markup=False, highlight=False)
            failed.append(row.name)
        except KeyboardInterrupt:
            console.print("Interrupted. All processes have been stopped and all files removed.")
            return 130
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
