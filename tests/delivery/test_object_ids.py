"""Object IDs of events: the string or integer at `data.object.id`."""

import json

import pytest

from uplift_server.core.limits import OBJECT_ID_CHARACTERS_MAX
from uplift_server.delivery.object_ids import object_id_of

LONGEST = "a" * OBJECT_ID_CHARACTERS_MAX


@pytest.mark.parametrize(
    ("literal", "object_id"),
    [
        (b'"athlete_4711"', "athlete_4711"),
        (b"4711", "4711"),
        (b"-3", "-3"),
        (b"12345678901234567890123", "12345678901234567890123"),
        (b'"\\ud83e\\udd86"', "\N{DUCK}"),
        (json.dumps(LONGEST).encode(), LONGEST),
        (json.dumps(LONGEST + "a").encode(), None),
        (b"9" * 5000, None),
        (b'""', None),
        (b"null", None),
        (b"true", None),
        (b"1.5", None),
        (b"1e3", None),
        (b'{"id":"a"}', None),
        (b'["a"]', None),
        (b'"\\u0000"', None),
        (b'"\\ud800"', None),
        (b'"\xff"', None),
    ],
)
def test_only_a_storable_string_or_integer_is_an_object_id(literal: bytes, object_id: str | None) -> None:
    assert object_id_of(b'{"object":{"kind":"session","id":' + literal + b"}}") == object_id


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b'{"object":null}', b'{"object":"a"}', b'{"object":{}}', b'{"id":"a"}', b'{"object":' + b"[" * 9999],
)
def test_other_data_has_no_object_id(data: bytes) -> None:
    assert object_id_of(data) is None


def test_the_last_of_repeated_keys_counts_as_in_other_json_readers() -> None:
    data = b'{"object":{"id":"first"},"object":{"id":"second","id":"third"}}'
    assert object_id_of(data) == json.loads(data)["object"]["id"]
