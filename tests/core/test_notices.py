"""Every kind of notice says which facts it carries."""

from uplift_server.core.notices import FACTS, NoticeKind


def test_every_kind_has_its_facts() -> None:
    assert set(FACTS) == set(NoticeKind)
    assert all(facts and len(set(facts)) == len(facts) for facts in FACTS.values())
