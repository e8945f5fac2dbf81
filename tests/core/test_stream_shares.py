"""Shares of accounts in the event stream."""

from uplift_server.core.events.stream_shares import StreamShares

MAXIMUM = 1000


def shares(*sizes: int) -> StreamShares:
    """Return shares in which the accounts 1, 2, … have events of these sizes."""
    found = StreamShares()
    for account_seq, size in enumerate(sizes, start=1):
        found.add(account_seq, size)
    return found


def limited(found: StreamShares) -> list[int]:
    return [account_seq for account_seq in range(1, 6) if found.exceeds(account_seq)]


def test_only_the_account_that_fills_the_stream_must_wait() -> None:
    found = shares(700, 10, 10, 10)
    assert limited(found) == []
    found.note_size(749, MAXIMUM)
    assert limited(found) == []
    found.note_size(750, MAXIMUM)
    assert limited(found) == [1]


def test_an_account_alone_cannot_fill_the_stream() -> None:
    found = shares(750)
    found.note_size(750, MAXIMUM)
    assert limited(found) == [1]


def test_equal_accounts_can_fill_the_stream() -> None:
    found = shares(500, 500)
    found.note_size(MAXIMUM, MAXIMUM)
    assert limited(found) == []


def test_a_process_that_was_restarted_limits_no_account() -> None:
    found = shares()
    found.note_size(MAXIMUM, MAXIMUM)
    found.add(1, 10)
    assert limited(found) == []
    found.add(1, 1)
    assert limited(found) == [1]


def test_earlier_events_do_not_count_after_the_stream_was_nearly_empty() -> None:
    found = shares(700, 10)
    found.note_size(10, MAXIMUM)
    found.note_size(MAXIMUM, MAXIMUM)
    assert limited(found) == [1]
    found.note_size(9, MAXIMUM)
    found.note_size(MAXIMUM, MAXIMUM)
    assert limited(found) == []
