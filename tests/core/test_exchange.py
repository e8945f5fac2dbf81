"""The result of an HTTP exchange: it is immutable, has safe defaults, and distinguishes the kinds of failures."""

import pytest

from uplift_server.core.http.exchange import Exchange, Failure


def test_an_exchange_cannot_be_changed() -> None:
    exchange = Exchange(started_at=1, duration_us=2)

    with pytest.raises(AttributeError):
        exchange.status_code = 200  # type: ignore[misc]


def test_a_request_counts_as_possibly_sent_by_default() -> None:
    # The receiver may have received the request, so a retry can be a duplicate.
    assert Exchange(started_at=1, duration_us=2).bytes_sent


def test_numbers_of_failures_are_distinct() -> None:
    assert [int(failure) for failure in Failure] == list(range(1, 8))
