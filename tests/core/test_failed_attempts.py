"""Limits on failed attempts, such as wrong passwords, for each key, such as an email address."""

from uplift_server.core.security.failed_attempts import Failures


def test_a_key_waits_after_too_many_failures_until_the_oldest_expires() -> None:
    counts = Failures(3, 1000)
    for now in (0, 100, 200):
        assert counts.wait_ms("a", now) == 0
        counts.note("a", now)
    assert counts.wait_ms("a", 300) == 700
    assert counts.wait_ms("b", 300) == 0
    assert counts.wait_ms("a", 999) == 1
    assert counts.wait_ms("a", 1000) == 0
    counts.note("a", 1000)
    assert counts.wait_ms("a", 1050) == 50


def test_successes_do_not_count() -> None:
    counts = Failures(2, 1000)
    counts.note("a", 0)
    counts.note("a", 1)
    counts.forgive("a")
    assert counts.wait_ms("a", 2) == 0
    counts.note("a", 2)
    assert counts.wait_ms("a", 3) > 0
    counts.forget("a")
    counts.forget("a")
    counts.forgive("a")
    assert counts.wait_ms("a", 3) == 0


def test_forgiving_a_key_without_failures_changes_nothing() -> None:
    counts = Failures(1, 1000)
    counts.note("a", 0)
    counts.forgive("a")
    counts.forgive("a")
    assert counts.wait_ms("a", 1) == 0


def test_a_clock_that_was_set_back_blocks_no_key() -> None:
    counts = Failures(1, 1000)
    counts.note("a", 10_000)
    assert counts.wait_ms("a", 500) == 0


def test_a_full_table_makes_new_keys_wait_until_the_oldest_expires() -> None:
    counts = Failures(2, 1000, keys_max=3)
    for now, key in enumerate("aabc"):
        counts.note(key, now)
    assert [counts.wait_ms(key, 10) for key in "abcd"] == [990, 0, 0, 991]
    counts.note("b", 500)
    assert counts.wait_ms("d", 1000) == 1
    assert counts.wait_ms("d", 1001) == 0
    counts.note("d", 1001)
    assert [counts.wait_ms(key, 1001) > 0 for key in "abcde"] == [True, True, False, False, True]


def test_forgiving_a_key_makes_room_for_another() -> None:
    counts = Failures(2, 1000, keys_max=1)
    counts.note("a", 0)
    assert counts.wait_ms("b", 1) > 0
    counts.forgive("a")
    assert counts.wait_ms("b", 1) == 0
