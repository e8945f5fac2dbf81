"""Sample data of the built-in event types."""

import json
import re
import uuid
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.events.catalog import EVENT_TYPES, MOVEMENT_ANALYTICS_CREATED
from uplift_server.core.events.samples import LINK_LIFETIME_MS, sample_data

NOW_MS = 1_764_000_000_000
VALIDATORS = {
    event_type.name: jsonschema_rs.Draft202012Validator(json.loads(json.dumps(event_type.schema)))
    for event_type in EVENT_TYPES
}


def capture(now_ms: int, random_bytes: bytes) -> Any:
    return sample_data(MOVEMENT_ANALYTICS_CREATED, now_ms, random_bytes)["object"]


@given(st.sampled_from(sorted(VALIDATORS)), st.integers(10**12, 10**13), st.binary(min_size=8, max_size=16))
def test_samples_match_their_schema(name: str, now_ms: int, random_bytes: bytes) -> None:
    data = sample_data(name, now_ms, random_bytes)

    VALIDATORS[name].validate(json.loads(json.dumps(data)))
    assert data == sample_data(name, now_ms, random_bytes)


@given(st.integers(10**12, 10**13), st.binary(min_size=8, max_size=16))
def test_a_link_has_the_published_format(now_ms: int, random_bytes: bytes) -> None:
    sample = capture(now_ms, random_bytes)
    url = urlsplit(sample["data"]["url"])
    query = parse_qs(url.query, strict_parsing=True)

    assert sample["data"]["expires"] == now_ms + LINK_LIFETIME_MS
    assert query["Expires"] == [str((now_ms + LINK_LIFETIME_MS) // 1000)]
    assert query.keys() == {"Expires", "Key-Pair-Id", "Signature"}
    assert re.fullmatch(r"[A-Za-z0-9~_-]+", query["Signature"][0])
    assert url.path.startswith(f"/{sample['organization']['user']}/uplift_data_export_2")
    # A reserved name (RFC 2606).
    assert (url.hostname or "").endswith(".example")


def test_the_file_name_has_the_time_one_second_earlier() -> None:
    assert "/uplift_data_export_20251124155959.csv?" in capture(NOW_MS, b"12345678")["data"]["url"]


@given(st.binary(min_size=8, max_size=16))
def test_sample_ids_are_valid(random_bytes: bytes) -> None:
    sample = capture(NOW_MS, random_bytes)
    session, _, repetition = sample["id"].partition("_")

    assert uuid.UUID(session).version == 4
    assert 1 <= int(repetition) <= 6
    assert uuid.UUID(sample["athlete"]["id"]).version == 5
    assert uuid.UUID(sample["athlete"]["id"]).variant == uuid.RFC_4122


def test_samples_vary_and_athletes_keep_their_ids() -> None:
    samples = [capture(NOW_MS, number.to_bytes(8, "big")) for number in range(300)]
    athletes = {sample["athlete"]["name"]: sample["athlete"]["id"] for sample in samples}

    assert len({sample["id"] for sample in samples}) == 300
    assert len({(sample["activity"], sample["movement"]) for sample in samples}) == 9
    assert len(athletes) == len(set(athletes.values())) == 12
    assert {(sample["athlete"]["name"], sample["athlete"]["id"]) for sample in samples} == set(athletes.items())


def test_there_are_no_samples_of_types_that_are_not_built_in() -> None:
    with pytest.raises(KeyError):
        sample_data("lab.report.created", NOW_MS, b"12345678")
