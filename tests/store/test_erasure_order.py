"""The order in which the server works on erasures."""

import sqlalchemy as sa

from uplift_server.store.erasures import unfinished
from uplift_server.store.schema import accounts
from uplift_server.store.schema_erasures import erasures

from .test_cleanup import insert


def test_many_erasures_of_one_account_do_not_delay_other_accounts(connection: sa.Connection) -> None:
    for number in (1, 2):
        insert(connection, accounts, number)
    for number, account in enumerate([1, 1, 1, 1, 2], 1):
        insert(connection, erasures, number, account_seq=account)
    assert [each.seq for each in unfinished(connection, limit=3)] == [1, 5, 2]
