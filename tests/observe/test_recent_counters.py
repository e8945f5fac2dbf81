"""Counters of the last minutes: slow transactions, and attempts that fail because of this server."""

from uplift_server.observe.counters import OwnFailures, RecentCommits


def test_the_duration_of_recent_transactions() -> None:
    commits = RecentCommits()
    assert commits.p99_ms(0) == (0, 0.0)
    for _ in range(98):
        commits.add(900, 60)
    commits.add(400_000, 61)
    commits.add(400_000, 61)
    # The duration is the upper bound of its bucket.
    assert commits.p99_ms(62) == (100, 500.0)
    commits.add(900, 125)
    assert commits.p99_ms(126) == (101, 500.0)
    # After two windows, the slow transactions do not count.
    assert commits.p99_ms(185) == (1, 1.0)
    assert commits.p99_ms(9_999) == (0, 0.0)
    commits.add(10**9, 9_999)
    assert commits.p99_ms(9_999) == (1, 5_000.0)


def test_recent_failures_of_this_server_and_all_attempts_since_the_first() -> None:
    failures = OwnFailures()
    assert failures.recent(500, 10) == (0, 0)
    failures.note(501, 100)
    failures.note(510, 110)
    assert failures.recent(600, 120) == (2, 100)
    failures.note(700, 170)
    assert failures.recent(700, 170) == (3, 200)
    assert failures.recent(900, 300) == (0, 0)
    failures.note(1000, 400)
    assert failures.recent(1000, 400) == (1, 1)
