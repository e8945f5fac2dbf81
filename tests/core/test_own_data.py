"""The `uid` and `metadata` of accounts and endpoints."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.own_data import check_metadata, check_uid, is_uid, merged, metadata_of, metadata_text

STORABLE = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)


@pytest.mark.parametrize("uid", ["1", "team-42", "White.Sox_7", "...", "_", "x" * 128, "ep", "ACC_1"])
def test_letters_digits_and_punctuation_of_paths_are_a_uid(uid: str) -> None:
    assert check_uid(uid) is None
    assert is_uid(uid)


@pytest.mark.parametrize(
    "uid", ["", "x" * 129, "a b", "a/b", "a%2Fb", "a?b", "a#b", "a~b", "caf\u00e9", "\u0663", "a\n", ".", ".."]
)
def test_a_uid_fits_in_one_segment_of_a_path(uid: str) -> None:
    problem = check_uid(uid, "account")
    assert problem is not None
    assert (problem.field, problem.code) == ("account", "uid_invalid")
    assert "1 to 128 letters" in problem.message
    assert not is_uid(uid)


@pytest.mark.parametrize("uid", ["acc_", "acc_team", "ep_1"])
def test_a_uid_never_looks_like_an_id(uid: str) -> None:
    problem = check_uid(uid)
    assert problem is not None
    assert (problem.field, problem.code) == ("uid", "uid_reserved")
    assert not is_uid(uid)


def codes(values: dict[str, str]) -> list[tuple[str, str]]:
    return [(problem.field, problem.code) for problem in check_metadata(values)]


def test_metadata_has_at_most_fifty_values() -> None:
    assert codes({}) == []
    assert codes({str(number): "" for number in range(50)}) == []
    assert codes({str(number): "" for number in range(51)}) == [("metadata", "too_many")]


def test_metadata_has_at_most_4096_bytes_as_stored() -> None:
    assert codes({"a": "x" * (4096 - len('{"a":""}'))}) == []
    assert codes({"a": "x" * (4097 - len('{"a":""}'))}) == [("metadata", "too_long")]
    assert codes({"a": "\u20ac" * 1363}) == [("metadata", "too_long")], "characters count as UTF-8"


@pytest.mark.parametrize("text", ["a\x00b", "\ud800", "a\udfff"])
def test_metadata_that_a_database_cannot_store_is_rejected(text: str) -> None:
    assert codes({"a": text}) == codes({text: "a"}) == [("metadata", "characters_invalid")]


@given(st.dictionaries(STORABLE, STORABLE, max_size=10))
def test_stored_metadata_is_a_json_object_with_the_same_values(values: dict[str, str]) -> None:
    assert check_metadata(values) == []
    stored = metadata_text(values)
    assert (stored is None) == (not values)
    assert metadata_of(stored) == values
    assert stored is None or json.loads(stored) == values


def test_changes_add_replace_and_remove_values() -> None:
    assert merged({"plan": "pro", "city": "Chicago"}, {"plan": "team", "city": None, "sport": "baseball"}) == {
        "plan": "team",
        "sport": "baseball",
    }
    assert merged({"plan": "pro"}, {"absent": None}) == merged({"plan": "pro"}, {}) == {"plan": "pro"}
