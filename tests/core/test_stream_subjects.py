"""Subjects of the event stream."""

import pytest

from uplift_server.core.events.stream_subjects import ACCEPTED, ACCEPTED_SUBJECT, emitter_account, rejected_subject
from uplift_server.core.own_data import is_uid


@pytest.mark.parametrize("account", ["acc_0123456789abcdef0123456789abcdef", "club-7", "eu.club.7", "accepted.1"])
def test_a_subject_names_an_account_by_id_or_uid(account: str) -> None:
    assert emitter_account(f"uplift.events.{account}") == account
    assert rejected_subject(account) == f"uplift.rejected.{account}"


def test_no_uid_names_the_subject_of_accepted_events() -> None:
    assert emitter_account(ACCEPTED_SUBJECT) is None
    assert not is_uid(ACCEPTED_SUBJECT.removeprefix("uplift.events."))
    assert not is_uid(ACCEPTED)


def test_the_subject_of_a_rejected_event_is_short() -> None:
    assert rejected_subject("ab." * 2000) == "uplift.rejected." + "ab." * 85 + "a"
    assert rejected_subject("a" * 255 + ".b") == "uplift.rejected." + "a" * 255
