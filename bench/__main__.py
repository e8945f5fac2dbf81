"""The command line: `bench/run ROW`, `bench/run all`, `bench/run --list`, `bench/run --smoke`."""

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

# Not /tmp, which is in memory on many systems.
_DIRECTORY: Final = Path("/var/tmp")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench/run",
        description="Measure Uplift Webhooks: one row of its table of figures at a time.",
        epilog="Everything stays on this machine's loopback, in a temporary directory that is removed at the end.",
    )
    parser.add_argument("row", nargs="*", help="rows to measure, or: all", metavar="ROW")
    parser.add_argument("--list", action="store_true", help="list the rows and how long they take")
    parser.add_argument("--smoke", action="store_true", help="only show that the rows (all, if none is named) run")
    parser.add_argument("--secs", type=float, help="seconds to measure instead of each row's own")
    parser.add_argument("--rate", type=float, help="events/s of the rows at half load, instead of measuring them")
    parser.add_argument("--connections", type=int, default=64, help="of the load at full speed (default 64)")
    parser.add_argument("--endpoints", type=int, default=20, help="of most rows (default 20)")
    parser.add_argument("--waiting", type=int, default=1_000_000, help="deliveries that wait (default 1,000,000)")
    parser.add_argument("--kills", type=int, default=50, help="of the row kill (default 50)")
    parser.add_argument("--seed", type=int, help="of the row kill (default: a new one, which is printed)")
    parser.add_argument("--dir", type=Path, default=_DIRECTORY, help=f"on the disk to measure (default {_DIRECTORY})")
    parser.add_argument("--server", type=Path, help="another uplift-server to measure, such as an older build's")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add each row's JSON line to this file")
    return parser


def main() -> int:
    """Run the chosen rows. Return 0 if every row ran."""
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
        parser.error(f"choose from: {', '.join(names)}, all" + (f"; not {unknown[0]}" if unknown else ""))
    if filesystem(arguments.dir.resolve()) == "tmpfs":
        parser.error(f"{arguments.dir} is memory, so commits would cost nothing; choose a disk with --dir")
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
            console.print(f"{row.name} did not run: {error}", style="red", markup=False, highlight=False)
            failed.append(row.name)
        except KeyboardInterrupt:
            console.print("Stopped; all processes ended, all files removed.")
            return 130
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
