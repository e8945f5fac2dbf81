"""Actions are named as people search for them."""

import re

from uplift_server.core.audit import ACTIONS, SYSTEM, ActorKind


def test_every_action_is_named_for_its_subject_and_has_a_sentence() -> None:
    for name, sentence in ACTIONS.items():
        assert re.fullmatch(r"[a-z_]+\.[a-z_]+", name)
        assert sentence.endswith(".")


def test_the_server_itself_acts_without_an_id() -> None:
    assert SYSTEM.kind is ActorKind.SYSTEM
    assert SYSTEM.id is SYSTEM.address is None
