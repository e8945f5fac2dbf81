"""The alerts and the Grafana dashboard use existing metrics only."""

import itertools
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.tools import tool

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Status
from uplift_server.core.operations.cluster import ProcessRole
from uplift_server.core.scheduling.waiting import HeldUpBy
from uplift_server.observe.counters import Rejection
from uplift_server.observe.metrics import METRICS, samples_of

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy/prometheus/alerts.yml"
DASHBOARDS = sorted((ROOT / "deploy/grafana").glob("*.json"))
PROCESS_METRICS = {
    "process_start_time_seconds",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_max_fds",
    "up",
}
KNOWN = {name for metric in METRICS for name in samples_of(metric)}
LABELS = {metric.name: metric.label for metric in METRICS}
VALUES = {
    "reason": {each.text for each in Rejection},
    "outcome": {each.text for each in Outcome},
    "status": {each.text for each in Status},
    "held_up_by": {*HeldUpBy},
    "role": {*ProcessRole},
    "kind": {"due", "later", "leased", "held", "blocked"},
    "state": {"unknown", "healthy", "failing", "warned", "paused", "disabled", "running"},
}
PROMETHEUS_LABELS = {"job", "instance", "le"}
EXPRESSION = r"^ +expr: (?:>-\n)?((?:.+\n)+?)(?= +(?:for|labels):)"
"""The expression of an alert, on one line or several."""


def expressions() -> Iterator[tuple[str, str]]:
    """Yield every query with its location."""
    for expression in re.findall(EXPRESSION, ALERTS.read_text(), re.MULTILINE):
        yield ALERTS.name, " ".join(expression.split())
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                yield f"{path.name}: {panel['title']}", target["expr"]
        for each in board["annotations"]["list"]:
            yield f"{path.name}: {each['name']}", each["expr"]


def boards() -> list[Any]:
    return [json.loads(path.read_text()) for path in DASHBOARDS]


def test_queries_use_existing_metrics_and_labels() -> None:
    for where, expression in expressions():
        named = re.findall(r"\b((?:uplift|process)_\w+|up)\b(?:\{([^}]*)\})?", expression)

        assert named, where
        for name, selector in named:
            assert name in KNOWN | PROCESS_METRICS, where
            for label, _, value in re.findall(r'(\w+)(=~|!=|=)"([^"]*)"', selector):
                assert label in {*PROMETHEUS_LABELS, LABELS.get(name)}, where
                if label not in PROMETHEUS_LABELS:
                    assert {*value.split("|")} <= VALUES[label], where
        wanted = {label for labels in re.findall(r"by \(([^)]*)\)", expression) for label in labels.split(", ")}
        assert wanted <= {*PROMETHEUS_LABELS, *(LABELS.get(name) for name, _ in named)}, where


def test_every_metric_is_on_a_dashboard() -> None:
    shown = " ".join(expression for where, expression in expressions() if where != ALERTS.name)
    shown += json.dumps([board["templating"] for board in boards()])

    missing = [metric.name for metric in METRICS if not re.search(rf"\b{metric.name}(_bucket|_count)?\b", shown)]
    # Panels with other metrics already show the information of these two.
    assert missing == ["uplift_accounts", "uplift_store_reading_age_seconds"]


def test_panels_do_not_overlap_and_have_unique_titles() -> None:
    for board in boards():
        panels = board["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        assert len({panel["title"] for panel in panels}) == len(panels)
        taken: set[tuple[int, int]] = set()
        for panel in panels:
            at = panel["gridPos"]
            cells = set(itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))
            assert at["x"] + at["w"] <= 24
            assert not cells & taken, panel["title"]
            taken |= cells


def test_panels_use_the_chosen_source_and_have_descriptions() -> None:
    for board in boards():
        variables = {each["name"] for each in board["templating"]["list"]}
        for panel in board["panels"]:
            if panel["type"] == "row":
                continue
            assert panel["description"]
            assert panel["fieldConfig"]["defaults"]["unit"]
            for target in [panel, *panel["targets"]]:
                assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            used = set(re.findall(r"\$(\w+)", " ".join(target["expr"] for target in panel["targets"])))
            assert used <= {*variables, "__rate_interval"}


def test_every_alert_is_tested_and_documented() -> None:
    alerts = re.findall(r"^ +- alert: (\w+)$", ALERTS.read_text(), re.MULTILINE)
    tests = ALERTS.with_name("alerts_test.yml").read_text()
    page = (ROOT / "docs/monitoring.md").read_text()

    assert len(alerts) > 10
    for alert in alerts:
        assert f"- name: {alert} fires\n" in tests
        assert f"- name: {alert} does not fire otherwise\n" in tests
    assert re.findall(r"^\| `(Uplift\w+)` \|", page, re.MULTILINE) == alerts


@pytest.mark.parametrize("command", [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")])
def test_prometheus_accepts_the_alerts(command: tuple[str, ...]) -> None:
    ran = subprocess.run([tool("promtool"), *command], cwd=ALERTS.parent, capture_output=True, text=True, check=False)

    assert ran.returncode == 0, ran.stdout + ran.stderr
