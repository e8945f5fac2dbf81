"""Email notifications: the values in their texts, the number of listed endpoints, and the retry schedule."""

from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.people.notifications import (
    EXPIRES_AFTER_MS,
    FACTS,
    GIVE_UP_AFTER_MS,
    LATE_AFTER_MS,
    OTHERS_MAX,
    Notification,
    NotificationKind,
    at_sending,
    endpoint_count,
    retry_at,
    with_endpoint,
    without_endpoint,
)

MINUTE = 60_000


def test_every_kind_has_its_facts() -> None:
    assert set(FACTS) == set(NotificationKind)
    assert all(facts and len(set(facts)) == len(facts) for facts in FACTS.values())


def test_an_email_lists_a_limited_number_of_endpoints() -> None:
    facts: dict[str, object] = {"endpoint": "ep_0"}
    for number in range(1, OTHERS_MAX + 3):
        facts = with_endpoint(facts, {"endpoint": f"ep_{number}"})
    assert facts["endpoint"] == "ep_0"
    assert facts["others"] == [{"endpoint": f"ep_{number}"} for number in range(1, OTHERS_MAX + 1)]
    assert facts["more"] == 2


def test_an_endpoint_is_removed_from_an_email() -> None:
    facts: dict[str, object] = {"endpoint": "ep_0"}
    assert without_endpoint(facts, "ep_0") is None
    for number in range(1, OTHERS_MAX + 3):
        facts = with_endpoint(facts, {"endpoint": f"ep_{number}"})
    left = without_endpoint(facts, "ep_0")
    assert left is not None
    assert (left["endpoint"], left["more"]) == ("ep_1", 2)
    left = without_endpoint(left, "ep_3")
    assert left is not None
    assert left["others"] == [{"endpoint": f"ep_{number}"} for number in range(2, OTHERS_MAX + 1) if number != 3]


def test_an_email_that_counts_further_endpoints_stays() -> None:
    facts: dict[str, object] = {"endpoint": "ep_0", "more": 1}
    assert without_endpoint(facts, "ep_0") == facts


def test_the_waits_between_emails_grow() -> None:
    minutes = [retry_at(attempts_made, created_at=0, now_ms=0) for attempts_made in range(1, 9)]
    assert minutes == [each * MINUTE for each in (1, 5, 30, 120, 360, 720, 720, 720)]


def test_the_last_attempt_is_at_the_time_limit() -> None:
    assert retry_at(9, created_at=0, now_ms=GIVE_UP_AFTER_MS - 1) == GIVE_UP_AFTER_MS
    assert retry_at(9, created_at=0, now_ms=GIVE_UP_AFTER_MS) is None
    assert retry_at(1, created_at=0, now_ms=2 * GIVE_UP_AFTER_MS) is None


def test_an_email_that_expires_in_an_hour_is_retried_for_an_hour() -> None:
    assert set(EXPIRES_AFTER_MS.values()) == {60 * MINUTE}
    assert retry_at(3, created_at=0, now_ms=50 * MINUTE, expires_after_ms=60 * MINUTE) == 60 * MINUTE
    assert retry_at(3, created_at=0, now_ms=60 * MINUTE, expires_after_ms=60 * MINUTE) is None


@given(st.integers(1, 100), st.integers(0, 2**41), st.integers(0, 2 * GIVE_UP_AFTER_MS))
def test_a_retry_is_later_and_within_the_limit(attempts_made: int, created_at: int, age_ms: int) -> None:
    now = created_at + age_ms
    at = retry_at(attempts_made, created_at=created_at, now_ms=now)
    assert at is None or now < at <= created_at + GIVE_UP_AFTER_MS
    assert (at is None) == (age_ms >= GIVE_UP_AFTER_MS)


def test_every_endpoint_of_an_email_counts() -> None:
    facts: dict[str, object] = {"url": "https://a.example/"}
    for number in range(1, OTHERS_MAX + 4):
        assert endpoint_count(facts) == number
        facts = with_endpoint(facts, {"url": f"https://a{number}.example/"})


def test_a_late_warning_gives_the_full_time_to_each_endpoint() -> None:
    others: list[object] = [{"endpoint": "ep_1", "disable_at": 520}, {"endpoint": "ep_2", "disable_at": 530}]
    facts: dict[str, object] = {"endpoint": "ep_0", "disable_at": 510, "others": others}
    warning = Notification(1, b"", NotificationKind.ENDPOINT_WARNED, "a@x.example", facts, created_at=10)
    assert at_sending(warning, 10 + LATE_AFTER_MS) is warning
    sent_at = 11 + LATE_AFTER_MS
    late = at_sending(warning, sent_at).facts
    assert late == {
        "endpoint": "ep_0",
        "disable_at": sent_at + 500,
        "others": [{"endpoint": f"ep_{number}", "disable_at": sent_at + 500} for number in (1, 2)],
    }


def test_a_late_email_without_a_disable_time_does_not_change() -> None:
    notice = Notification(1, b"", NotificationKind.ENDPOINT_DISABLED, "a@x.example", {"endpoint": "ep_0"}, created_at=0)
    assert at_sending(notice, 2 * LATE_AFTER_MS) is notice
