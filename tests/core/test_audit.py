"""Audit log entries: the names of actions, and the fields and values that the entry of a change lists."""

import re

from uplift_server.core.people.audit import ACTIONS, SYSTEM, ActorKind, difference, without_query


def test_every_action_is_named_for_its_subject_and_has_a_sentence() -> None:
    for name, sentence in ACTIONS.items():
        assert re.fullmatch(r"[a-z_]+\.[a-z_]+", name)
        assert sentence.endswith(".")


def test_the_system_actor_has_no_id() -> None:
    assert SYSTEM.kind is ActorKind.SYSTEM
    assert SYSTEM.id is SYSTEM.address is None


def test_a_change_lists_its_fields_and_only_harmless_values() -> None:
    before = {"url": "https://a.example/x?token=1", "headers": {"x-key": "1"}, "limit": 5, "name": "a"}
    after = {"url": "https://b.example/y?token=2#z", "headers": {"x-key": "2"}, "limit": None, "name": "a"}

    assert difference(before, after, shown=("url", "limit", "name")) == {
        "changed": ["url", "headers", "limit"],
        "from": {"url": "https://a.example/x", "limit": 5},
        "to": {"url": "https://b.example/y", "limit": None},
    }


def test_a_change_of_secrets_lists_no_values() -> None:
    assert difference({"headers": {}}, {"headers": {"a": "b"}}, shown=("url",)) == {"changed": ["headers"]}


def test_no_change_is_empty() -> None:
    assert difference({"url": "u", "headers": {}}, {"url": "u", "headers": {}}, shown=("url",)) == {}


def test_urls_have_no_query() -> None:
    assert without_query("https://a.example/x?token=1?2") == "https://a.example/x"
    assert without_query("https://a.example/x") == "https://a.example/x"
