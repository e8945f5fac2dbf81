"""PgBouncer in front of the PostgreSQL server of the tests. It runs each transaction on another connection."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.postgres import name_of

SECONDS_MAX: Final = 10.0
# Round robin makes tests fail if a transaction leaves state on a connection.
SETTINGS: Final = """
[databases]
* = host={postgres} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
server_round_robin = 1
default_pool_size = 6
max_client_conn = 500
ignore_startup_parameters = {ignored}
logfile = {directory}/log
pidfile = {directory}/pid
"""


class Pooler:
    """A PgBouncer process in front of the PostgreSQL server that has its socket in the directory `postgres`."""

    def __init__(self, postgres: Path, *, ignored: str = "", **more: str | bytes) -> None:
        """Start PgBouncer.

        It ignores the startup parameters in `ignored`. `more` contains other settings: bytes are written to a file, and
        the value of the setting is the path of the file.
        """
        command = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        assert command is not None, "these tests need PgBouncer: apt-get install -y pgbouncer"
        self.directory = Path(tempfile.mkdtemp(prefix="uplift-pooler-"))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        file = self.directory / "pgbouncer.ini"
        settings = SETTINGS.format(postgres=postgres, port=self.port, directory=self.directory, ignored=ignored)
        for name, value in more.items():
            if isinstance(value, bytes):
                (self.directory / name).write_bytes(value)
            settings += f"{name} = {self.directory / name if isinstance(value, bytes) else value}\n"
        file.write_text(settings)
        # Like PostgreSQL, PgBouncer does not run as root.
        nobody = pwd.getpwnam("nobody")
        changed = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        if changed:
            for path in (self.directory, *self.directory.iterdir()):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
        self._process = subprocess.Popen(
            [command, "-q", file], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            cwd=self.directory, **changed,
        )  # fmt: skip
        self._wait()

    def url(self, direct: str) -> str:
        """Return the URL of a database through the pooler."""
        name = name_of(direct)
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}?pooler=transaction"

    def close(self) -> None:
        """Stop PgBouncer and remove its directory."""
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self.directory)

    def _wait(self) -> None:
        end = time.monotonic() + SECONDS_MAX
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                if time.monotonic() > end:
                    log = self.directory / "log"
                    text = log.read_text() if log.exists() else "there is no log"
                    self.close()
                    raise AssertionError(f"PgBouncer does not listen: {text}") from None
                time.sleep(0.02)
            else:
                return
