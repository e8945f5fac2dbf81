"""The size of an event in a database commit, as a number of rows."""

from uplift_server.core.events.commit_rows import commit_rows
from uplift_server.core.limits import (
    ACCOUNT_ACCEPTS_WAITING_ROWS_MAX,
    BATCH_BODY_BYTES_MAX,
    GROUP_ROWS_MAX,
    ROW_BODY_BYTES,
)


def test_a_large_body_counts_as_several_rows() -> None:
    assert commit_rows(0, 0) == 1
    assert commit_rows(3, ROW_BODY_BYTES - 1) == 4
    assert commit_rows(3, 10 * ROW_BODY_BYTES) == 14


def test_the_largest_request_fits_the_queue_of_an_account() -> None:
    assert GROUP_ROWS_MAX + BATCH_BODY_BYTES_MAX // ROW_BODY_BYTES <= ACCOUNT_ACCEPTS_WAITING_ROWS_MAX
