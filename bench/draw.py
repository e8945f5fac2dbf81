"""Charts of benchmark results: `bench/draw` reads the JSON lines from `bench/run --json` and writes SVG files."""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any, Final

from bench.processes import ROOT
from bench.svg import COLORS, Drawing

RESULTS: Final = ROOT / "docs" / "benchmarks.jsonl"
_WIDTH: Final = 860
_TICKS: Final = ("p50", "p75", "p90", "p95", "p99", "p99.9", "p99.99")
# Curves in the latency chart. Curves at full load are omitted, because a closed loop then measures only its own queue.
_CURVES: Final = ("accepted → received at 300", "accepted → received at half", "half load, 20% hang", "half load, ")


def read(file: Path, *, smoke: bool) -> dict[str, dict[str, Any]]:
    """Return the latest result of each row."""
    found: dict[str, dict[str, Any]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if not record["smoke"] or smoke:
            found[record["row"]] = record
    return found


def latency(records: dict[str, dict[str, Any]], file: Path) -> bool:
    """Draw latency by percentile, one curve for each condition. Return whether there was data."""
    curves = {
        name: [values[tick] for tick in _TICKS]
        for record in records.values()
        for name, values in record["curves"].items()
        if values and name.startswith(_CURVES) and "none hang" not in name and "empty" not in name
    }
    if not curves:
        return False
    left, right, top, bottom = 60, 250, 60, 380
    low = math.floor(math.log10(max(0.01, min(map(min, curves.values())))))
    high = math.ceil(math.log10(max(0.1, *map(max, curves.values()))))
    step = (_WIDTH - left - right) / (len(_TICKS) - 1)
    drawing = Drawing(_WIDTH, 440, "Latency from the scheduled time of an event to its arrival, by percentile")

    def height(value: float) -> float:
        share = (math.log10(max(value, 10**low)) - low) / max(1, high - low)
        return bottom - share * (bottom - top)

    drawing.text(left - 40, 28, "Accepted → received, ms", kind="strong")
    for power in range(low, high + 1):
        drawing.grid(left, height(10**power), _WIDTH - right, height(10**power))
        drawing.text(left - 8, height(10**power) + 4, f"{10.0**power:g}", kind="quiet", anchor="end")
    for index, tick in enumerate(_TICKS):
        drawing.text(left + index * step, bottom + 22, tick, kind="quiet", anchor="middle")
    label = -math.inf
    colors = dict(zip(curves, COLORS * len(curves), strict=False))
    for name, values in sorted(curves.items(), key=lambda curve: -curve[1][-1]):
        points = [(left + index * step, height(value)) for index, value in enumerate(values)]
        drawing.curve(points, colors[name])
        # Labels are at the ends of their curves, moved down to avoid overlaps.
        label = max(points[-1][1] + 4, label + 17)
        drawing.text(_WIDTH - right + 12, label, name, color=colors[name])
    drawing.text(left - 40, 428, _where(records), kind="quiet")
    drawing.write(file)
    return True


def throughput(records: dict[str, dict[str, Any]], file: Path) -> bool:
    """Draw events per second next to the machine's limits. Return whether there was data."""
    if "end-to-end" not in records:
        return False
    record = records["end-to-end"]
    bars = [("accepted, stored, signed, delivered", record["figures"]["delivered"]["value"], COLORS[0])]
    if "batch" in records:
        bars.append(("accepted in batches of 100", records["batch"]["figures"]["accepted"]["value"], COLORS[2]))
    bars += [(name, value, COLORS[4]) for name, value in record["reference"].items()]
    left, right, top = 260, 120, 56
    most = max(value for _, value, _ in bars)
    drawing = Drawing(_WIDTH, top + 34 * len(bars) + 44, "Events per second, and limits of the same machine")
    drawing.text(20, 28, "Per second, on the same machine in the same run", kind="strong")
    for index, (name, value, color) in enumerate(bars):
        y = top + 34 * index
        width = value / most * (_WIDTH - left - right)
        drawing.text(left - 12, y + 16, name, anchor="end")
        drawing.box(left, y, width, 22, color)
        drawing.text(left + width + 8, y + 16, f"{value:,.0f}", kind="strong")
    drawing.text(20, top + 34 * len(bars) + 26, _where(records), kind="quiet")
    drawing.write(file)
    return True


def _where(records: dict[str, dict[str, Any]]) -> str:
    record = next(iter(records.values()))
    machine, versions = record["machine"], record["versions"]
    return (
        f"{machine['cpu']}, {machine['cores']} cores shared with load generator and receiver, {machine['filesystem']}, "
        f"Python {versions['python']}, {versions['uplift']}, {record['at'][:10]}"
    )


def main() -> int:
    """Draw all charts."""
    parser = argparse.ArgumentParser(prog="bench/draw", description="Draw charts of the results of bench/run --json.")
    parser.add_argument(
        "results",
        nargs="?",
        type=Path,
        default=RESULTS,
        help="file that bench/run --json wrote (default: docs/benchmarks.jsonl)",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="directory for the charts (default: docs)")
    parser.add_argument("--smoke", action="store_true", help="include the results of smoke runs")
    arguments = parser.parse_args()
    if not arguments.results.exists():
        parser.error(f"{arguments.results} does not exist. To create it, run: bench/run all --json {arguments.results}")
    records = read(arguments.results, smoke=arguments.smoke)
    drawn = 0
    for name, draw in (("benchmarks-latency.svg", latency), ("benchmarks-throughput.svg", throughput)):
        file = arguments.out / name
        if draw(records, file):
            print(file)
            drawn += 1
    return 0 if drawn else 1


if __name__ == "__main__":
    sys.exit(main())
