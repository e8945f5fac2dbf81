"""The texts of database errors, which the server logs.

Parameters can contain personal data, password hashes and credentials in URLs.
"""

import sqlite3
from contextlib import closing

import pytest
import sqlalchemy as sa

from uplift_server.store.errors import Rejected
from uplift_server.store.sqlite.connection import bound

from .bench import Bench

STATEMENT = sa.text("SELECT :secret FROM missing")
PARAMETERS = {"secret": "geheim"}


def test_errors_of_sqlite_do_not_contain_parameters() -> None:
    with closing(sqlite3.connect(":memory:")) as connection, pytest.raises(sa.exc.DBAPIError) as caught:
        bound(connection).execute(STATEMENT, PARAMETERS)
    assert "SELECT" in str(caught.value)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_errors_of_postgresql_do_not_contain_parameters(any_bench: Bench) -> None:
    for run in (any_bench.database.read, any_bench.database.write):
        with pytest.raises(Rejected) as caught:
            await run(lambda connection: connection.execute(STATEMENT, PARAMETERS).all())
        cause = caught.value.__cause__
        assert isinstance(cause, sa.exc.DBAPIError)
        assert "geheim" not in f"{caught.value} {cause}"
