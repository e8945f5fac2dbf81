"""Names, labels and exposition formats of metrics."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.observe.counters import EngineCounters, Histogram, Rejection, StoreCounters
from uplift_server.observe.exposition import render
from uplift_server.observe.metrics import METRICS, PREFIX
from uplift_server.observe.snapshot import DatabaseReading, Disk, Snapshot, StreamReading

AT = 1_764_000_000_000
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
STORED = DatabaseReading(
    read_at=AT - 500,
    waiting={"due": 1, "later": 2, "leased": 3, "held": 4, "blocked": 5},
    pending=6,
    oldest_due_at={"server": AT - 1_500, "endpoint": None, "probe": AT + 1},
    emails_waiting=5,
    oldest_email_at=AT - 60_000,
    replays={"running": 1, "paused": 0},
    oldest_event_at=None,
)


def snapshot(**changes: Any) -> Snapshot:
    """Return a complete snapshot."""
    engine = EngineCounters()
    engine.removed["events"] = 7
    engine.retention_round_at = AT - 30_000
    given = Snapshot(
        at=AT,
        version="1.2.3",
        python="3.11.7",
        revision="0006",
        engine=engine,
        store=StoreCounters(),
        writes_waiting=8,
        in_flight=9,
        in_flight_max=1000,
        in_memory=10,
        sending_stopped=False,
        accounts=11,
        endpoints={"healthy": 12, "paused": 1},
        processes={"all": 0, "api": 2, "worker": 3},
        failing={"tls_error": 3},
        pending_failing=40,
        certificates_expiring=4,
        at_limit=1,
        probed=2,
        mass_failure=True,
        log_lines_dropped=3,
        disk=Disk(100, 200, 300),
        stored=STORED,
        store_up=True,
        stream_up=True,
        stream=StreamReading(AT - 500, 21, AT - 3_000, 3, 3, 80, 100, 1_000, 100_000),
    )
    return replace(given, **changes)


def samples(given: Snapshot) -> dict[str, float]:
    """Return the values by name with labels, without the metrics of the process collector."""
    body, _ = render(given, "")
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in parse_text(body.decode())
        for sample in family.samples
        if sample.name.startswith(PREFIX)
    }


def test_names_end_with_unit_and_kind() -> None:
    names = [metric.name for metric in METRICS]

    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert re.fullmatch(r"uplift_[a-z]+(_[a-z]+)*", metric.name)
        assert (metric.kind == "counter") == metric.name.endswith("_total")
        assert (metric.kind == "info") == metric.name.endswith("_info")
        assert metric.kind != "histogram" or metric.name.endswith("_seconds")
        assert not metric.name.endswith(("_ms", "_us", "_count", "_sum", "_bucket"))
        assert metric.help[0].isupper() or metric.help[0].isdigit()
        assert metric.help[-1] != "."


def test_a_complete_snapshot_has_a_value_for_every_metric() -> None:
    found = {name.partition(" ")[0] for name in samples(snapshot())}

    expected = {metric.name for metric in METRICS if metric.kind != "histogram"}
    for metric in METRICS:
        if metric.kind == "histogram":
            expected |= {f"{metric.name}_{end}" for end in ("bucket", "sum", "count")}
    assert found == expected


def test_times_become_ages_in_seconds() -> None:
    found = samples(snapshot())

    assert found["uplift_oldest_due_age_seconds server"] == 1.5
    assert found["uplift_oldest_due_age_seconds endpoint"] == 0
    # `oldest_due_at` can be later than `at`, because the two clocks are read one after the other.
    assert found["uplift_oldest_due_age_seconds probe"] == 0
    assert found["uplift_oldest_mail_age_seconds"] == 60
    assert found["uplift_stream_oldest_age_seconds"] == 3
    assert found["uplift_store_reading_age_seconds"] == 0.5
    assert found["uplift_retention_round_age_seconds"] == 30


def test_values_have_labels() -> None:
    given = snapshot()
    given.engine.attempts[Outcome.TIMEOUT] += 4
    given.engine.rejected[Rejection.FULL] += 2
    found = samples(given)

    assert found["uplift_attempts_total timeout"] == 4
    assert found["uplift_attempts_total delivered"] == 0
    assert found["uplift_events_refused_total full"] == 2
    assert found["uplift_endpoints paused"] == 1
    assert found["uplift_processes worker"] == 3
    assert found["uplift_deliveries_waiting held"] == 4
    assert found["uplift_retention_removed_rows_total events"] == 7
    assert found["uplift_mass_failure"] == 1
    assert found["uplift_database_disk_free_bytes"] == 200
    assert found["uplift_build_info 3.11.7 0006 1.2.3"] == 1


def test_unknown_values_are_omitted() -> None:
    found = samples(snapshot(stored=None, store_up=False, disk=None, engine=EngineCounters()))

    assert found["uplift_store_up"] == 0
    assert found["uplift_attempts_in_flight"] == 9
    absent = ("uplift_deliveries_waiting", "uplift_oldest_due", "uplift_database", "uplift_retention_round")
    assert not [name for name in found if name.startswith(absent)]


def test_a_bucket_includes_its_upper_bound() -> None:
    histogram = Histogram((1, 5, 10), 1000)
    for value in (-7, 0, 1, 2, 5, 6, 10, 11):
        histogram.observe(value)
    histogram.observe_many(3, 4)

    assert histogram.counts == [3, 6, 2, 1]
    assert histogram.sum == 35 + 12


def test_buckets_are_cumulative() -> None:
    given = snapshot()
    for value_us in (400, 500, 600, 9_000_000):
        given.store.commits.observe(value_us)
    name = "uplift_store_commit_duration_seconds"
    found = samples(given)

    assert found[f"{name}_bucket 0.0005"] == 2
    assert found[f"{name}_bucket 0.001"] == 3
    assert found[f"{name}_bucket 5.0"] == 3
    assert found[f"{name}_bucket +Inf"] == found[f"{name}_count"] == 4
    assert found[f"{name}_sum"] == pytest.approx(9.0015)


@pytest.mark.parametrize(
    ("accept", "parse", "content_type"),
    [
        ("", parse_text, "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", parse_text, "text/plain; version=0.0.4; charset=utf-8"),
        (OPENMETRICS, parse_openmetrics, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
    ],
)
def test_both_formats_are_supported(accept: str, parse: Callable[[str], Any], content_type: str) -> None:
    body, actual_type = render(snapshot(), accept)

    assert actual_type.startswith(content_type)
    families = {family.name: family for family in parse(body.decode())}
    assert families["uplift_attempts"].type == "counter"
    assert families["uplift_accept_duration_seconds"].type == "histogram"
    assert families["process_start_time_seconds"].samples[0].value > 1e9


def test_without_a_stream_its_state_is_absent() -> None:
    found = samples(snapshot(stream_up=None, stream=None))

    assert not {"uplift_stream_up", "uplift_stream_messages", "uplift_stream_oldest_age_seconds"} & found.keys()
