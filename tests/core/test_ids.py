"""IDs sort by time, and their texts convert back to their bytes."""

import uuid
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core import ids

TIMESTAMPS = st.integers(0, (1 << 48) - 1)
RANDOM = st.binary(min_size=ids.RANDOM_BYTES, max_size=ids.RANDOM_BYTES)
IDS = st.binary(min_size=16, max_size=16)


@given(TIMESTAMPS, RANDOM)
def test_other_libraries_parse_a_uuid7(now_ms: int, random_bytes: bytes) -> None:
    value = uuid.UUID(bytes=ids.uuid7(now_ms, random_bytes))

    assert value.version == 7
    assert value.variant == uuid.RFC_4122
    assert value.int >> 80 == now_ms


@given(IDS)
def test_uuids_of_version_7(value: bytes) -> None:
    assert ids.is_uuid7(value) is (uuid.UUID(bytes=value).hex[12] == "7")


@given(TIMESTAMPS, RANDOM)
def test_generated_uuids_are_version_7(now_ms: int, random_bytes: bytes) -> None:
    assert ids.is_uuid7(ids.uuid7(now_ms, random_bytes))


def test_the_vector_of_rfc_9562() -> None:
    # Appendix A.6: unix_ts_ms 0x017F22E279B0, rand_a 0xCC3, rand_b 0x18C4DC0C0C07398F.
    value = ids.uuid7(0x017F22E279B0, bytes.fromhex("0cc318c4dc0c0c07398f"))

    assert ids.uuid_text(value) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


@given(TIMESTAMPS, TIMESTAMPS, RANDOM, RANDOM)
def test_ids_sort_by_time_as_bytes_and_as_text(first: int, second: int, a: bytes, b: bytes) -> None:
    earlier, later = sorted((first, second))
    if earlier == later:
        return
    one, two = ids.uuid7(earlier, a), ids.uuid7(later, b)

    assert one < two
    assert ids.uuid_text(one) < ids.uuid_text(two)
    assert ids.prefixed(ids.ENDPOINT, one) < ids.prefixed(ids.ENDPOINT, two)


@given(st.lists(st.tuples(st.integers(-3, 3), RANDOM), min_size=2))
def test_ids_of_a_sequence_strictly_increase(steps: list[tuple[int, bytes]]) -> None:
    drawn = b"".join(random_bytes for _, random_bytes in steps)
    sequence, now_ms, made = ids.IdSequence(lambda count: (drawn * count)[:count]), 1_764_000_000_000, []
    for step, _ in steps:
        now_ms += step
        made.append(sequence.next(now_ms))

    assert all(one < two for one, two in pairwise(made))
    assert all(uuid.UUID(bytes=value).version == 7 for value in made)
    assert all(uuid.UUID(bytes=value).variant == uuid.RFC_4122 for value in made)


@given(TIMESTAMPS, RANDOM)
def test_the_first_id_of_a_millisecond_has_its_timestamp(now_ms: int, random_bytes: bytes) -> None:
    value = uuid.UUID(bytes=ids.IdSequence(lambda count: (random_bytes * count)[:count]).next(now_ms))

    assert value.int >> 80 == now_ms
    assert value.int & (1 << 62) - 1 == int.from_bytes(random_bytes[2:], "big") & (1 << 62) - 1


def test_many_ids_in_a_millisecond_run_ahead_of_the_clock() -> None:
    sequence = ids.IdSequence(lambda count: b"\xff" * count)
    made = [sequence.next(1000) for _ in range(10_000)]

    assert all(one < two for one, two in pairwise(made))
    assert uuid.UUID(bytes=made[-1]).int >> 80 == 1002


@given(IDS)
def test_uuid_texts_are_canonical_and_parsed_in_either_case(value: bytes) -> None:
    text = ids.uuid_text(value)

    assert text == str(uuid.UUID(bytes=value))
    assert ids.parse_uuid(text) == ids.parse_uuid(text.upper()) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0197f0c2",
        "0197f0c200007000800000000000000a",
        "{0197f0c2-0000-7000-8000-00000000000a}",
        "0197f0c2-0000-7000-8000-00000000000g",
        "0197f0c2-0000-7000-8000-00000000000a\n",
        "\u0660197f0c2-0000-7000-8000-00000000000a",
    ],
)
def test_invalid_uuids(text: str) -> None:
    assert ids.parse_uuid(text) is None


@given(IDS)
def test_prefixed_ids_decode_to_their_bytes(value: bytes) -> None:
    assert ids.parse_prefixed(ids.KEY, ids.prefixed(ids.KEY, value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ep",
        "ep_",
        "ep_00",
        f"acc_{'0' * 32}",
        f"ep_{'0' * 31}g",
        f"ep_{'A' * 32}",
        f"ep_{'0' * 32}\n",
        "ep_" + "\u0660" * 32,
    ],
)
def test_invalid_endpoint_ids(text: str) -> None:
    assert ids.parse_prefixed(ids.ENDPOINT, text) is None


@given(IDS, IDS)
def test_a_delivery_id_contains_its_event_and_endpoint(event_id: bytes, endpoint_id: bytes) -> None:
    text = ids.delivery_id(event_id, endpoint_id)

    assert ids.parse_delivery_id(text) == (event_id, endpoint_id[-6:])
    assert ids.parse_delivery_id(text[:-1]) is None


@given(IDS, IDS, st.integers(1, 1 << 20))
def test_attempt_ids_sort_by_number(event_id: bytes, endpoint_id: bytes, number: int) -> None:
    this = ids.attempt_id(event_id, endpoint_id, number)

    assert this.startswith("att_" + ids.delivery_id(event_id, endpoint_id).removeprefix("dlv_"))
    assert this < ids.attempt_id(event_id, endpoint_id, number + 1)
    assert ids.parse_attempt_id(this) == (event_id, endpoint_id[-6:], number)
    assert ids.parse_attempt_id(this[:-1]) is None


@given(IDS, st.integers(ids.UUID_BEGINNING_CHARACTERS_MIN, 36))
def test_every_uuid_is_in_the_range_of_its_prefixes(value: bytes, length: int) -> None:
    beginning = ids.uuid_text(value)[:length]
    found = ids.uuid_range(beginning.upper())

    assert found is not None
    lowest, highest = found
    assert lowest <= value <= highest
    assert ids.uuid_text(lowest)[:length] == ids.uuid_text(highest)[:length] == beginning


@pytest.mark.parametrize("text", ["", "0197f", "0197-f", "0197fg", "0" * 33, "0197f0_", "\uff10197f0"])
def test_invalid_prefixes_have_no_range(text: str) -> None:
    assert ids.uuid_range(text) is None
