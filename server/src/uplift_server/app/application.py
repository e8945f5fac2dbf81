"""The application: builds, starts and stops all parts of a server process."""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import structlog

from uplift_server import __version__
from uplift_server.api.app import create_api
from uplift_server.api.forwarded import Forwarded
from uplift_server.api.ingest import IngestRoutes
from uplift_server.api.single_headers import SingleHeaders
from uplift_server.api.traceparents import Traceparents
from uplift_server.api.turn_limit import TurnLimit
from uplift_server.api.vital_signs import VitalSigns
from uplift_server.app.database_file import DatabaseFile
from uplift_server.app.engine_parts import EngineParts, Foundation, LocalFoundation, build_engine
from uplift_server.app.http_server import HttpServer, duplicate_listener, http_server, listen
from uplift_server.app.process import (
    make_directory,
    permanent_objects,
    return_memory,
    share_files,
    switch_threads_often,
)
from uplift_server.app.service_parts import build_services
from uplift_server.app.wiring import (
    database,
    engine_settings,
    outbox,
    sender,
    sender_settings,
    traces,
)
from uplift_server.config import Config, ConfigError, ConfigProblem, check_database, publish_key, secret_key
from uplift_server.core.cursors import Cursors
from uplift_server.core.http.addresses import AddressPolicy
from uplift_server.core.http.forwarding import parse_networks
from uplift_server.core.limits import DRAIN_MS_MAX, EVENT_INTEGER_DIGITS_MAX
from uplift_server.core.operations.cluster import ProcessRole
from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.dashboard import gate
from uplift_server.delivery.clock import DatabaseTime, SystemClock
from uplift_server.delivery.sending.http.resolver import Resolver
from uplift_server.delivery.tracing import Traces
from uplift_server.observe.attempt_log import AttemptLine, AttemptLog
from uplift_server.observe.log_writer import LogWriter, raw_stream
from uplift_server.observe.logs import supports_color
from uplift_server.service.context import ServiceContext
from uplift_server.service.identity_provider import IdentityProvider, identity_provider
from uplift_server.service.ingest import Ingest
from uplift_server.service.services import Services
from uplift_server.service.startup import ProcessKey, prepare, require_operations_account
from uplift_server.service.system import System
from uplift_server.service.traced_ingest import TracedIngest
from uplift_server.store import encryption_upgrade, event_times, schema_version
from uplift_server.store.encryption import Cipher, derived_key, fingerprint, parse_key
from uplift_server.store.schema_version import UnknownSchema
from uplift_server.store.sqlite import SqliteDatabase
from uplift_server.store.sqlite.file_watch import DatabaseLost

if TYPE_CHECKING:
    from uplift_server.app.cluster_parts import ClusteredFoundation
    from uplift_server.app.stream_parts import StreamParts
    from uplift_server.mail.outbox import Outbox
    from uplift_server.store.contract import MessageBus

CLOSE_SECONDS: Final = 0.9
OUTBOX_SECONDS: Final = 1.9
"""Time limit for stopping the outbox, in seconds.

The limit is longer than `mail.outbox.STOP_SECONDS`, so that the outbox can send the current email and store its result.
"""


class Application:
    """The server in one process. Starts and stops the database, services, delivery engine, API and dashboard."""

    def __init__(
        self,
        config: Config,
        *,
        operator_key: str | None = None,
        keep_key: Callable[[str], None] = lambda _: None,
        dispatch: bool = True,
        role: ProcessRole = ProcessRole.ALL,
        new_database: bool = False,
        log_writer: LogWriter | None = None,
    ) -> None:
        """`operator_key` overrides the configured key. `keep_key` saves a new operator key before its first use.

        If `dispatch` is false, the server stores deliveries but does not send them. `log_writer` writes the log lines
        about attempts, and the caller must close it. By default, the lines go to standard error. `new_database` allows
        an empty SQLite database even if the key of an earlier database exists. Raises ConfigError if the `role`
        requires PostgreSQL but the database is SQLite.
        """
        if role is not ProcessRole.ALL and not config.on_postgresql:
            reason = f"is {role}, which needs a PostgreSQL database"
            raise ConfigError(
                ConfigProblem("--role", reason, "omit the option, or set UPLIFT_DATABASE_URL to a PostgreSQL database")
            )
        self._config = config
        self._role = role
        self._new_database = new_database
        self._dispatch = dispatch and role.delivers
        self._operator_key = operator_key or config.operator_key
        self._keep_key = keep_key
        self._time = DatabaseTime()
        self._clock = SystemClock(self._time.now_ns) if config.on_postgresql else SystemClock()
        self._bus: MessageBus | None = None
        self._settings = sender_settings(config)
        self._database = database(config)
        self._log = structlog.get_logger()
        self._stopped = asyncio.Event()
        self._resolver: Resolver
        self._parts: EngineParts
        self._outbox: Outbox | None = None
        self._stream: StreamParts | None = None
        self._clustered: ClusteredFoundation | None = None
        self._traces: Traces | None = None
        self._context: ServiceContext
        self._provider: IdentityProvider | None = None
        self._gate: gate.Gate
        self._server: HttpServer
        self._serving: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._file = DatabaseFile(self._database, self._clock) if isinstance(self._database, SqliteDatabase) else None
        self._given_writer = log_writer
        self._log_writer: LogWriter
        self._attempt_log: AttemptLog
        self._started_at: int
        self._callers_max: int
        self.address: tuple[str, int] = (config.host, config.port)
        """The address of the listening socket. After startup, it contains the actual port."""
        self.failed = False
        """Whether an unexpected error stopped the server. The log contains the error."""
        self._unknown_schema: UnknownSchema | None = None
        self.new_operator_key: str | None = None
        """The operator key that the server created during startup, or None. The server shows the key only once."""

    async def start(self) -> None:
        """Start all parts and listen for requests. Raises ConfigError, Unavailable, UnknownSchema or WrongSecretKey."""
        async with contextlib.AsyncExitStack() as undo:
            self._config, self._settings, self._callers_max = share_files(self._config, self._settings)
            switch_threads_often()
            sys.set_int_max_str_digits(EVENT_INTEGER_DIGITS_MAX)
            if isinstance(self._database, SqliteDatabase):
                make_directory(self._config.database_path.parent)
                self._database.lock()
                check_database(self._config, new=self._new_database)
            undo.push_async_callback(self._database.close)
            listener = listen(self._config)
            undo.callback(listener.close)
            self.address = listener.getsockname()[:2]
            key = parse_key(secret_key(self._config))
            await self._open_database(undo)
            cipher = await self._cipher(key)
            self._started_at = self._clock.now_ms()
            self._build(cipher, undo)
            await self._parts.engine.join()
            process_key = ProcessKey(fingerprint(key), self._parts.shards.process_id)
            with permanent_objects():
                self.new_operator_key = await prepare(self._context, process_key, self._operator_key, self._keep_key)
                if self._dispatch:
                    require_operations_account(self._parts.cache, self._config.operations_account)
                await self._parts.engine.start(dispatch=self._dispatch)
                if self._provider is not None:
                    await self._provider.start()
                if self._traces is not None:
                    self._traces.start()
                if self._stream is not None:
                    undo.push_async_callback(self._stream.stop)
                    await self._stream.start()
                if self._dispatch:
                    self._start_outbox(undo)
                self._serving = asyncio.create_task(
                    self._server.serve(sockets=duplicate_listener(listener)), name="http"
                )
                while not self._server.started:
                    if self._serving.done():
                        self._serving.result()
                    await asyncio.sleep(0.005)
            undo.pop_all()
        return_memory()
        self._serving.add_done_callback(lambda _: self._stopped.set())
        if self._file is not None:
            self._watching = asyncio.create_task(self._watch(self._file), name="file watch")

    async def wait_stopped(self) -> None:
        """Wait until a caller requests a stop with `request_stop`, or until an error ends the server."""
        await self._stopped.wait()

    def request_stop(self) -> None:
        """Request a stop, so that `wait_stopped` returns."""
        self._stopped.set()

    @property
    def rescue_seconds_max(self) -> float:
        """The additional time in seconds that `stop` can take to save the data of a deleted or replaced SQLite file."""
        return 0 if self._file is None else self._file.rescue_seconds_max

    @property
    def barred(self) -> UnknownSchema | DatabaseLost | None:
        """The database error that stopped the server, or None if no such error occurred."""
        return self._unknown_schema or (None if self._file is None else self._file.lost)

    async def stop(self) -> None:
        """Stop the server: reject requests, settle or release the leased deliveries, and close the database.

        The shutdown takes at most 20 s, plus `rescue_seconds_max`.
        """
        self._close_ingest()
        self._gate.close()
        self._server.should_exit = True
        if self._serving is not None:
            # Stop the outbox first. Otherwise, another process could take over the job and resend the current email.
            outbox = asyncio.create_task(self._stop_outbox())
            await asyncio.wait([outbox], timeout=OUTBOX_SECONDS)
            # Send the last responses while attempts in flight finish.
            await asyncio.gather(self._serving, self._drain(), outbox)
        if self._watching is not None:
            # SQLite deletes its log during the close below. A late check would report the database as lost.
            self._watching.cancel()
        if self._file is not None:
            await self._file.rescue()
        for part, close in (
            ("traces", self._stop_traces),
            ("single sign-on", self._stop_provider),
            ("changes", self._context.finish),
            ("resolver", self._resolver.close),
            ("database", self._database.close),
            ("log", self._close_log),
        ):
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await close()
            except TimeoutError:
                self._log.error("shutdown step timed out", part=part)
        self._stopped.set()

    def _close_ingest(self) -> None:
        self._parts.event_ingest.close()
        if self._stream is not None:
            self._stream.close()

    async def _drain(self) -> None:
        until = self._clock.now_ms() + DRAIN_MS_MAX
        if self._stream is not None:
            await self._stream.stop()
        await self._parts.engine.drain(until - self._clock.now_ms())

    async def _watch(self, file: DatabaseFile) -> None:
        await file.wait_lost(self._stopped)
        if file.lost is not None:
            self._close_ingest()
            self.request_stop()

    def _stop_after_failure(self, error: BaseException | None) -> None:
        if isinstance(error, UnknownSchema):
            self._unknown_schema = error
        else:
            self.failed = True
        self.request_stop()

    async def _close_log(self) -> None:
        if self._given_writer is None:
            await asyncio.get_running_loop().run_in_executor(None, self._log_writer.close)

    def _public_url(self) -> str:
        """Return the configured public URL, with the real port if the configured port is 0."""
        url = self._config.public_url
        return f"{url.removesuffix(':0')}:{self.address[1]}" if url.endswith(":0") else url

    def _link_key(self) -> bytes:
        return derived_key(parse_key(secret_key(self._config)), "links")

    async def _open_database(self, undo: contextlib.AsyncExitStack) -> None:
        if self._config.on_postgresql:
            from uplift_server.delivery.cluster.membership import learn_time  # noqa: PLC0415 - see `database`
            from uplift_server.store.postgres.message_bus import new_message_bus  # noqa: PLC0415
            from uplift_server.store.postgres.schema_version import prepare  # noqa: PLC0415

            await prepare(self._config.database_url)
            self._bus = new_message_bus(self._config.database_direct_url or self._config.database_url)
            undo.push_async_callback(self._bus.close)
            await learn_time(self._bus, self._time)
        else:
            copy = schema_version.upgrade(self._config.database_path, now_ms=self._clock.now_ms())
            publish_key(self._config)
            if copy is not None:
                self._log.info("database upgraded", revision=schema_version.HEAD, backup=str(copy))
        await self._database.open()
        self._clock.continue_after(await self._database.read(event_times.newest))

    async def _cipher(self, key: bytes) -> Cipher:
        """Create the cipher for this database.

        On SQLite, first complete the encryption upgrade, which encrypts the values from earlier releases again.
        Afterward, a value can be decrypted only in its own column.
        """
        cipher = Cipher(key, accepts_unbound=await self._database.read(encryption_upgrade.accepts_unbound))
        if cipher.accepts_unbound and not self._config.on_postgresql:
            await self._database.write(lambda c: encryption_upgrade.finish(c, cipher))
            cipher.reject_unbound()
            self._log.info("encryption upgrade completed")
        return cipher

    def _build(self, cipher: Cipher, undo: contextlib.AsyncExitStack) -> None:
        config = self._config
        policy = AddressPolicy(config.allow_private_networks)
        self._resolver = Resolver(self._settings)
        undo.push_async_callback(self._resolver.close)
        http_sender = sender(self._settings, policy, self._resolver, self._clock)
        if self._given_writer is None:
            self._log_writer = LogWriter(raw_stream(sys.stderr))
            undo.callback(self._log_writer.close)
        else:
            self._log_writer = self._given_writer
        self._attempt_log = AttemptLog(self._log_writer, config.log_format, colors=supports_color(sys.stderr))
        self._traces = traces(config, self._database, self._clock)
        undo.push_async_callback(self._stop_traces)
        self._parts = build_engine(
            self._database,
            cipher,
            http_sender,
            self._clock,
            engine_settings(config),
            self._foundation(),
            user_agent=self._user_agent(),
            public_url=self._public_url(),
            on_lines=self._note_attempts,
            on_loop_failure=self._stop_after_failure,
        )
        cache, event_ingest = self._parts.cache, self._parts.event_ingest
        undo.push_async_callback(self._parts.engine.drain)
        self._stream = self._make_stream()
        self._context = ServiceContext(
            self._database,
            cache,
            self._clock,
            self._parts.link(),
            Cursors(derived_key(parse_key(secret_key(config)), "cursors")),
            id_sequence=event_ingest.ids,
            stream=None if self._stream is None else self._stream.stream,
            accepts_through_stream=self._stream is not None and self._role.serves,
        )
        self._provider = identity_provider(config, self._public_url(), self._resolver, self._clock, self._user_agent())
        undo.push_async_callback(self._stop_provider)
        services = build_services(
            config,
            self._context,
            cipher,
            policy,
            self._resolver,
            self._provider,
            public_url=self._public_url(),
            log_lines_dropped=lambda: self._log_writer.dropped,
        )
        acceptance = event_ingest if self._stream is None else self._stream.ingest
        freshness = None if self._clustered is None else self._clustered.cluster.cache_sync
        ingest = Ingest(cache, acceptance, self._clock, freshness)
        if self._stream is not None and self._dispatch:
            self._stream.consume(ingest, self._traces)
        if self._traces is not None:
            ingest = TracedIngest(cache, acceptance, self._clock, freshness, self._traces.note_event)
        api = create_api(services, public_url=self._public_url())
        self._gate = gate.Gate(api, lambda: self._dashboard(services, api))
        pages_and_api = TurnLimit(SingleHeaders(self._behind_proxies(self._gate)))
        routes = IngestRoutes(pages_and_api, services.authenticator, ingest, services.unfinished_bodies)
        self._server = http_server(
            self._traced(routes) if self._role.serves else SingleHeaders(VitalSigns(api)), self._callers_max
        )

    def _foundation(self) -> Foundation:
        if self._bus is None:
            return LocalFoundation(engine_settings(self._config).process_id)
        from uplift_server.app.cluster_parts import ClusteredFoundation  # noqa: PLC0415 - see `database`

        self._clustered = ClusteredFoundation(self._database, self._bus, self._clock, self._time, self._role)
        return self._clustered

    def _make_stream(self) -> "StreamParts | None":
        """If the event stream is configured, create the parts that publish and consume its events."""
        if self._clustered is None:
            return None
        if self._config.nats_url is None:
            self._clustered.jobs.set_possible(SingletonJob.EVENT_STREAM, is_possible=False)
            return None
        # Import only if a stream is configured, to save memory.
        from uplift_server.app.stream_parts import StreamParts  # noqa: PLC0415

        clustered, stop = self._clustered, self._stop_after_failure
        return StreamParts(self._config, self._database, self._parts, clustered, self._clock, stop)

    async def _stop_provider(self) -> None:
        if self._provider is not None:
            await self._provider.close()

    def _user_agent(self) -> str:
        return f"Uplift-Webhooks/{__version__} (+{self._public_url()}/docs)"

    def _traced(self, app: gate.App) -> gate.App:
        return app if self._traces is None else Traceparents(app)

    def _note_attempts(self, lines: Sequence[AttemptLine]) -> None:
        self._attempt_log.write(lines)
        if self._traces is not None:
            self._traces.note_attempts(lines)

    async def _stop_traces(self) -> None:
        if self._traces is not None:
            await self._traces.stop()

    def _behind_proxies(self, app: gate.App) -> gate.App:
        proxies = self._config.trusted_proxies
        return Forwarded(app, parse_networks(",".join(proxies))) if proxies else app

    def _dashboard(self, services: Services, api: gate.App) -> gate.Pages:
        """Create the dashboard.

        Import the dashboard module only here, because the import is slow and a server without visitors does not need
        the module.
        """
        from uplift_server.dashboard.app import create_dashboard  # noqa: PLC0415

        return create_dashboard(
            services,
            key=derived_key(parse_key(secret_key(self._config)), "dashboard"),
            public_url=self._public_url(),
            frame_ancestors=self._config.dashboard_frame_ancestors,
            system=System(self._config, self._started_at),
            sends_mail=self._config.sends_mail,
            allows_private_networks=self._config.allow_private_networks,
            branding=self._config.branding,
            api=api,
        )

    def _start_outbox(self, undo: contextlib.AsyncExitStack) -> None:
        """Start sending emails if a mail server is configured."""
        if not self._config.sends_mail:
            return
        self._outbox = outbox(
            self._config,
            self._database,
            self._parts.jobs,
            self._clock,
            public_url=self._public_url(),
            link_key=self._link_key(),
        )
        undo.push_async_callback(self._outbox.stop)
        self._outbox.start()

    async def _stop_outbox(self) -> None:
        if self._outbox is not None:
            await self._outbox.stop()
