"""How a command reaches the data: through the HTTP API, always, of the server that runs or of one made for the moment.

A SQLite file belongs to one process at a time, so no command opens it beside a server. Whether one runs is told by the
file's lock, where that can be opened, and not by asking a port, which may be anybody's.
"""

import asyncio
import contextlib
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvloop

from uplift_server.cli.advice import ADVICE, REMEDY_WITHOUT_KEY
from uplift_server.config import Config, ConfigError, ConfigProblem
from uplift_server.core.operations.cluster import ProcessRole
from uplift_server.observe.logs import configure_logs
from uplift_server.store.errors import Unavailable
from uplift_webhooks.api import ApiFailure
from uplift_webhooks.api.client import api_error
from uplift_webhooks.api.connections import ApiResponse, Connections
from uplift_webhooks.cli.kit.calls import Calls, call_failure, misaddressed
from uplift_webhooks.cli.kit.errors import CliError, ExitCode

if TYPE_CHECKING:
    from uplift_server.app import Application

LOOK_SECONDS: Final = 2.0
_READY: Final = b"ready\n"
_NOT_READY: Final = (503, "unavailable")
"""Status and problem code of `/readyz` if the server is not ready."""
_OF_WORKERS: Final = (421, 404)
"""What a process answers that serves no API; the second, one of a release before."""
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 30.0
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared only


@contextmanager
def reach(config: Config, *, create: bool = False) -> Iterator[Calls]:
    """A client with an operator's rights. Raises CliError, ConfigError or what a start raises.

    A database is made only for a command that may `create` one: for all others there would be nothing in it.
    """
    asked = _is_asked(config)
    if not create and not asked and not database_exists(config):
        raise no_database(config)
    with contextlib.ExitStack() as ending:
        client = None if asked else _own_client(config, ending)
        yield client or ending.enter_context(contextlib.closing(_client_of_the_running(config)))


def _is_asked(config: Config) -> bool:
    """Whether a server that runs is to be asked.

    One on PostgreSQL need not be: others on the database see within a second what was changed. A worker cannot be.
    """
    if not config.on_postgresql:
        return server_runs(config)
    return config.operator_key is not None and server_runs(config) and serves_api(config)


def remedy_to_send(config: Config) -> str:
    """What to do so that something is sent, where a command works on the database itself."""
    if not config.on_postgresql or not server_runs(config):
        return "start the server: uplift-server serve"
    if not serves_api(config):
        return remedy_beside_worker(config)
    return "set UPLIFT_OPERATOR_KEY, so that the server here is asked"


def remedy_beside_worker(config: Config) -> str:
    """What to do so that a server is asked that takes requests, where the one found here does not."""
    more = "" if config.operator_key else ", and UPLIFT_OPERATOR_KEY"
    return f"this one only delivers: set UPLIFT_HOST and UPLIFT_PORT to those of one with --role api or all{more}"


def when_sent(config: Config) -> str:
    """When what such a command has stored is done."""
    if config.on_postgresql and server_runs(config):
        return "by the servers that deliver, at once if one runs"
    return "as soon as a server runs: uplift-server serve"


def database_exists(config: Config) -> bool:
    """Whether a server has made it: the file of SQLite, or the tables in PostgreSQL.

    Raises ConfigError where a file cannot be looked for, Unavailable, and UnknownSchema for tables that are not ours.
    """
    if not config.on_postgresql:
        return _exists(config.database_path)
    from uplift_server.store.postgres import schema_version  # noqa: PLC0415 - takes long to load

    return asyncio.run(schema_version.current(config.database_url)) is not None


def _exists(path: Path) -> bool:
    """Whether a file is there. Raises ConfigError where that cannot be seen."""
    try:
        return path.exists()
    except OSError as error:
        raise ConfigError(
            ConfigProblem(
                "UPLIFT_DATABASE_URL",
                f"names {path}, which cannot be looked at ({error.strerror})",
                "let this user in, or correct it",
            )
        ) from error


def no_database(config: Config) -> CliError:
    """What to say where it is not: and of a file, whether somebody's server is at the place of ours."""
    if config.on_postgresql:
        return CliError(
            f"no server has used the database {config.shown_database}: it is empty",
            "start one with `uplift-server serve`, which makes its tables, or correct UPLIFT_DATABASE_URL",
            ExitCode.NOT_FOUND,
        )
    url = local_url(config)
    if _answers(config):
        found = f"the server at {url} uses another"
        remedy = "run the command in the directory where that server was started"
    else:
        found = f"no server at {url}"
        remedy = "start one with `uplift-server serve`, which makes it, or go to the directory where it is"
    return CliError(
        f"there is no database at {config.database_path.absolute()}, and {found}",
        f"{remedy}; UPLIFT_DATABASE_URL and --config name one elsewhere",
        ExitCode.NOT_FOUND,
    )


def _own_client(config: Config, ending: contextlib.ExitStack) -> Calls | None:
    """A client of a server made for the moment; None if somebody started one since we looked, which is to be asked."""
    try:
        return ending.enter_context(_momentary(config))
    except Unavailable:
        # Servers share a PostgreSQL: whatever is wrong, it is not that another one runs.
        if config.on_postgresql or not server_runs(config):
            raise
        return None


def _client_of_the_running(config: Config) -> Calls:
    key = config.operator_key or stored_operator_key(config)
    if key is None:
        raise CliError(
            "a server runs, and this command has no operator key for it",
            REMEDY_WITHOUT_KEY,
            ExitCode.NOT_ALLOWED,
        )
    return Calls(local_url(config), key, ADVICE, use_proxy=False)


def local_url(config: Config) -> str:
    """Where the server of this configuration listens, as seen from this machine."""
    host = _EVERYWHERE.get(config.host, config.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{config.port}"


def server_runs(config: Config) -> bool:
    """Whether another process has the SQLite file.

    On PostgreSQL, and where this user may not open the file's lock: whether a server of ours answers on this machine.
    """
    if config.on_postgresql:
        return _answers(config)
    # The store takes half a second to load, which the help of every command should not have to wait for.
    from uplift_server.store.sqlite.connection import FileLock  # noqa: PLC0415

    try:
        return FileLock(config.database_path).is_held()
    except Unavailable:
        return _answers(config)


def database_is_used(config: Config) -> bool:
    """Whether any server has the database, on whatever machine. Raises Unavailable."""
    if not config.on_postgresql:
        return server_runs(config)
    from uplift_server.store.postgres import inspection  # noqa: PLC0415 - takes long to load

    return asyncio.run(inspection.servers(config.database_url)) > 0


def _look(config: Config, path: str, seconds: float = LOOK_SECONDS) -> ApiResponse:
    """The response of the server at the configured address to a GET. Raises ApiFailure.

    It never carries the key: any program may listen there.
    """
    with contextlib.closing(Connections(local_url(config), seconds, use_proxy=False)) as connections:
        return connections.exchange("GET", path, None, {})


def check_ready(config: Config, seconds: float) -> str | None:
    """The ID of the database of the server at the configured address. Raises CliError if it is not ready."""
    url = local_url(config)
    try:
        answer = _look(config, "/readyz", seconds)
        if answer.status != 200:
            raise api_error(answer)
    except ApiFailure as error:
        raise call_failure(error, url, ADVICE) from error
    if answer.content != _READY:
        raise misaddressed(url, "its /readyz is another", ADVICE)
    return answer.headers.get("uplift-database")


def _answers(config: Config) -> bool:
    """Whether a server of ours responds at the configured address, ready or not."""
    with contextlib.suppress(ApiFailure):
        ready = _look(config, "/readyz")
        if ready.status != 200:
            return (ready.status, api_error(ready).code) == _NOT_READY
        if ready.content == _READY:
            return True
    # While its database is silent, /readyz takes longer than we wait.
    with contextlib.suppress(ApiFailure):
        health = _look(config, "/healthz")
        return (health.status, health.content) == (200, b"ok\n")
    return False


def serves_api(config: Config) -> bool:
    """Whether the server at the configured address serves the API. A worker does not."""
    try:
        return _look(config, "/v1/accounts?limit=1").status not in _OF_WORKERS
    except ApiFailure:
        return True


def operator_key_path(config: Config) -> Path:
    """Where the first `serve` keeps the operator key it made, for the commands of the same user."""
    return config.database_path.with_name("operator.key")


def stored_operator_key(config: Config) -> str | None:
    """The operator key the first `serve` made, if it is there and ours to read."""
    if config.on_postgresql:
        return None
    try:
        return operator_key_path(config).read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def store_operator_key(config: Config, key: str) -> None:
    """Keep an operator key for later commands. Who can read it can read the database and its sealing key too."""
    handle = os.open(operator_key_path(config), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(handle, f"{key}\n".encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def new_operator_key() -> str:
    """A random operator key."""
    return f"op_{secrets.token_urlsafe(24)}"


@contextmanager
def _momentary(config: Config) -> Iterator[Calls]:
    """A server of our own on a free loopback port, with a key nobody else has, for as long as the command runs.

    It sends nothing: this shell's settings may be others than those of the server whose deliveries these are.
    """
    # On the terminal its log would bury what the command has to say.
    own = replace(config, host="127.0.0.1", port=0, log_format="none")
    configure_logs(own.log_format)
    key = new_operator_key()
    server = _Momentary(own, key)
    host, port = server.start()
    try:
        with contextlib.closing(Calls(f"http://{host}:{port}", key, ADVICE, sends=False)) as client:
            yield client
    finally:
        server.stop()


class _Momentary:
    """Runs an application on an event loop in a thread."""

    def __init__(self, config: Config, key: str) -> None:
        self._config = config
        self._key = key
        self._started = threading.Event()
        self._address: tuple[str, int] | None = None
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._application: Application | None = None
        self._thread = threading.Thread(target=self._run, name="momentary-server", daemon=True)

    def start(self) -> tuple[str, int]:
        """Start it, and give its address. Raises what the start raised."""
        self._thread.start()
        self._started.wait(START_SECONDS)
        if self._error is not None:
            self._thread.join(STOP_SECONDS)
            raise self._error
        if self._address is None:
            raise Unavailable(f"the database was not ready within {START_SECONDS:.0f} s")
        return self._address

    def stop(self) -> None:
        """Stop it, once what it has begun is settled."""
        if self._loop is not None and self._application is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._application.request_stop)
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # the thread that waits raises it
            self._error = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        from uplift_server.app import Application  # noqa: PLC0415 - commands that need no server start faster

        self._loop = asyncio.get_running_loop()
        # Among other processes it is one that delivers nothing.
        role = ProcessRole.API if self._config.on_postgresql else ProcessRole.ALL
        self._application = application = Application(self._config, operator_key=self._key, dispatch=False, role=role)
        await application.start()
        self._address = application.address
        self._started.set()
        try:
            await application.wait_stopped()
        finally:
            await application.stop()
