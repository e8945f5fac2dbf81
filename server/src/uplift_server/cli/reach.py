"""Connects commands to the HTTP API of the running server, or of a temporary server in this process.

Only one process can use a SQLite file. To find a running server, commands check the lock on the file instead of the
port, because another program can use the port.
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
"""The first line of the `/readyz` response if the server is ready.

With an event stream, the second line can name a problem with the database.
"""
_NOT_READY: Final = (503, "unavailable")
"""Status code and problem code of the `/readyz` response if the server is not ready."""
_WORKER_STATUS_CODES: Final = (421, 404)
"""The status codes with which a worker rejects API requests. Workers from an earlier release respond with 404."""
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 30.0
_LOOPBACK_BY_WILDCARD: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared only


@contextmanager
def reach(config: Config, *, create: bool = False) -> Iterator[Calls]:
    """Open an API client that has an operator key, for the running server or a temporary one.

    If `create` is true, create a missing database. Raises CliError, ConfigError and the temporary server's startup
    errors.
    """
    uses_running = _uses_running_server(config)
    if not create and not uses_running and not database_exists(config):
        raise no_database(config)
    with contextlib.ExitStack() as ending:
        client = None if uses_running else _temporary_client(config, ending)
        yield client or ending.enter_context(contextlib.closing(running_client(config)))


def _uses_running_server(config: Config) -> bool:
    """Return whether the command uses the running server instead of a temporary server.

    On PostgreSQL, a temporary server can run alongside the running server. The command then uses the running server
    only if the operator key is configured and the server serves the API.
    """
    if not config.on_postgresql:
        return server_runs(config)
    return config.operator_key is not None and server_runs(config) and serves_api(config)


def remedy_to_send(config: Config) -> str:
    """Return the instruction to show if a command needs a running server but cannot use one."""
    if not config.on_postgresql or not server_runs(config):
        return "start the server: uplift-server serve"
    if not serves_api(config):
        return remedy_beside_worker(config)
    return "set UPLIFT_OPERATOR_KEY so the command uses the running server"


def remedy_beside_worker(config: Config) -> str:
    """Return the instruction to show if the server at the configured address is a worker, which has no API."""
    more = "" if config.operator_key else ", and set UPLIFT_OPERATOR_KEY"
    return f"set UPLIFT_HOST and UPLIFT_PORT to the address of a server with the role api or all{more}"


def when_sent(config: Config) -> str:
    """Return a sentence for users that says when the server will process the request that a command has stored.

    The command's temporary server only stores requests, such as resends and erasures. It does not process them.
    """
    if config.on_postgresql and server_runs(config):
        return "A running worker processes the request immediately."
    return "To process the request, start the server: uplift-server serve"


def database_exists(config: Config) -> bool:
    """Return whether the SQLite file or the PostgreSQL tables exist.

    Raises ConfigError, Unavailable or UnknownSchema.
    """
    if not config.on_postgresql:
        return _exists(config.database_path)
    from uplift_server.store.postgres import schema_version  # noqa: PLC0415 - slow to load

    return asyncio.run(schema_version.current(config.database_url)) is not None


def _exists(path: Path) -> bool:
    """Return whether a file exists. Raises ConfigError if the directory is not readable."""
    try:
        return path.exists()
    except OSError as error:
        raise ConfigError(
            ConfigProblem(
                "UPLIFT_DATABASE_URL",
                f"is {path}, which your user cannot read ({error.strerror})",
                "give your user access to the directory, or correct the path",
            )
        ) from error


def no_database(config: Config) -> CliError:
    """Return the error for a missing database.

    For SQLite, the error also states whether a server is running with a different database.
    """
    if config.on_postgresql:
        return CliError(
            f"the database {config.shown_database} is empty",
            "run `uplift-server serve` to create the tables, or correct UPLIFT_DATABASE_URL",
            ExitCode.NOT_FOUND,
        )
    url = local_url(config)
    if responds(config):
        found = f"the server at {url} uses a different database"
        remedy = "run the command in the directory where you started that server"
    else:
        found = f"no server is running at {url}"
        remedy = "run `uplift-server serve` to create a database, or change to the directory of an existing database"
    return CliError(
        f"there is no database at {config.database_path.absolute()}, and {found}",
        f"{remedy}; to use a database elsewhere, set UPLIFT_DATABASE_URL or --config",
        ExitCode.NOT_FOUND,
    )


def _temporary_client(config: Config, ending: contextlib.ExitStack) -> Calls | None:
    """Return a client for a temporary server, or None if another server has just locked the SQLite file."""
    try:
        return ending.enter_context(_temporary_server(config))
    except Unavailable:
        # On PostgreSQL, another server is never the cause, because servers share the database.
        if config.on_postgresql or not server_runs(config):
            raise
        return None


def running_client(config: Config) -> Calls:
    """Open an API client for the running server, with an operator key. Raises CliError if there is no key."""
    key = config.operator_key or stored_operator_key(config)
    if key is None and not responds(config):
        # On the first start, `serve` stores the operator key only shortly before the server is ready.
        raise CliError(
            f"a server is using the database, but does not respond at {local_url(config)}",
            "if the server is starting, try again in a few seconds; otherwise, set UPLIFT_HOST and UPLIFT_PORT to the"
            " address of the server",
            ExitCode.TRY_LATER,
        )
    if key is None:
        raise CliError(
            "the running server requires an operator key",
            REMEDY_WITHOUT_KEY,
            ExitCode.NOT_ALLOWED,
        )
    return Calls(local_url(config), key, ADVICE, use_proxy=False)


def local_url(config: Config) -> str:
    """Return the URL of the server at the configured host and port, for requests from this machine."""
    host = _LOOPBACK_BY_WILDCARD.get(config.host, config.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{config.port}"


def server_runs(config: Config) -> bool:
    """Return whether a server is running.

    On SQLite, a server is running if another process has locked the database file. On PostgreSQL, or if the lock is not
    readable, a server is running if it responds at the configured address.
    """
    if config.on_postgresql:
        return responds(config)
    # The store takes half a second to load, which would slow down `--help`.
    from uplift_server.store.sqlite.connection import FileLock  # noqa: PLC0415

    try:
        return FileLock(config.database_path).is_held()
    except Unavailable:
        return responds(config)


def database_is_used(config: Config) -> bool:
    """Return whether a server on any machine uses the database. Raises Unavailable."""
    if not config.on_postgresql:
        return server_runs(config)
    from uplift_server.store.postgres import inspection  # noqa: PLC0415 - slow to load

    return asyncio.run(inspection.servers(config.database_url)) > 0


def _get(config: Config, path: str, seconds: float = LOOK_SECONDS) -> ApiResponse:
    """Send a GET request without a key, because the program at the configured address might not be the server.

    Raises ApiFailure.
    """
    with contextlib.closing(Connections(local_url(config), seconds, use_proxy=False)) as connections:
        return connections.exchange("GET", path, None, {})


def check_ready(config: Config, seconds: float) -> str | None:
    """Return the database ID of the server at the configured address. Raises CliError if the server is not ready."""
    url = local_url(config)
    try:
        response = _get(config, "/readyz", seconds)
        if response.status != 200:
            raise api_error(response)
    except ApiFailure as error:
        raise call_failure(error, url, ADVICE) from error
    if not response.content.startswith(_READY):
        raise misaddressed(url, "its /readyz response is not valid", ADVICE)
    return response.headers.get("uplift-database")


def responds(config: Config) -> bool:
    """Return whether an Uplift server responds at the configured address, ready or not."""
    with contextlib.suppress(ApiFailure):
        ready = _get(config, "/readyz")
        if ready.status != 200:
            return (ready.status, api_error(ready).code) == _NOT_READY
        if ready.content.startswith(_READY):
            return True
    # If the database does not respond, /readyz takes longer than LOOK_SECONDS. In that case, try /healthz.
    with contextlib.suppress(ApiFailure):
        health = _get(config, "/healthz")
        return (health.status, health.content) == (200, b"ok\n")
    return False


def serves_api(config: Config) -> bool:
    """Return whether the server at the configured address serves the API. Workers do not serve the API.

    Return True if the server does not respond.
    """
    try:
        return _get(config, "/v1/accounts?limit=1").status not in _WORKER_STATUS_CODES
    except ApiFailure:
        return True


def operator_key_path(config: Config) -> Path:
    """Return the path of the operator key. The first `serve` creates the file for commands that the same user runs."""
    return config.database_path.with_name("operator.key")


def stored_operator_key(config: Config) -> str | None:
    """Return the operator key that the first `serve` created, if it is readable."""
    if config.on_postgresql:
        return None
    try:
        return operator_key_path(config).read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def store_operator_key(config: Config, key: str) -> None:
    """Save an operator key for later commands, in a file that only this user can read."""
    handle = os.open(operator_key_path(config), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(handle, f"{key}\n".encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def new_operator_key() -> str:
    """Create a random operator key."""
    return f"op_{secrets.token_urlsafe(24)}"


@contextmanager
def _temporary_server(config: Config) -> Iterator[Calls]:
    """Run a temporary server on a free loopback port with a random operator key.

    The temporary server does not send deliveries, because the settings in this shell can differ from the settings of
    the real server.
    """
    # The temporary server's log would hide the command's output.
    own = replace(config, host="127.0.0.1", port=0, log_format="none")
    configure_logs(own.log_format)
    key = new_operator_key()
    server = _TemporaryServer(own, key)
    host, port = server.start()
    try:
        with contextlib.closing(Calls(f"http://{host}:{port}", key, ADVICE, sends=False)) as client:
            yield client
    finally:
        server.stop()


class _TemporaryServer:
    """Runs an application on an event loop in a separate thread."""

    def __init__(self, config: Config, key: str) -> None:
        self._config = config
        self._key = key
        self._started = threading.Event()
        self._address: tuple[str, int] | None = None
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._application: Application | None = None
        self._thread = threading.Thread(target=self._run, name="temporary-server", daemon=True)

    def start(self) -> tuple[str, int]:
        """Start the application and return its address. Raises the application's startup errors."""
        self._thread.start()
        self._started.wait(START_SECONDS)
        if self._error is not None:
            self._thread.join(STOP_SECONDS)
            raise self._error
        if self._address is None:
            raise Unavailable(f"the database was not ready within {START_SECONDS:.0f} seconds")
        return self._address

    def stop(self) -> None:
        """Stop the application, and wait until it has stopped."""
        if self._loop is not None and self._application is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._application.request_stop)
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # the thread that waits for the start raises the error
            self._error = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        from uplift_server.app import Application  # noqa: PLC0415 - slow to load

        self._loop = asyncio.get_running_loop()
        # On PostgreSQL, the role `api` keeps this process from owning endpoints.
        role = ProcessRole.API if self._config.on_postgresql else ProcessRole.ALL
        self._application = application = Application(self._config, operator_key=self._key, dispatch=False, role=role)
        await application.start()
        self._address = application.address
        self._started.set()
        try:
            await application.wait_stopped()
        finally:
            await application.stop()
