"""The event stream: keeps a connection to NATS, creates the streams, and reads the size of the backlog."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

import structlog

from uplift_server.config import Config
from uplift_server.core.events.stream_subjects import (
    EVENTS_STREAM,
    EVENTS_SUBJECTS,
    REJECTED_STREAM,
    REJECTED_SUBJECTS,
)
from uplift_server.core.limits import (
    REJECTED_STREAM_BYTES_MAX,
    REJECTED_STREAM_SECONDS,
    STREAM_BYTES_MAX,
    STREAM_DUPLICATES_SECONDS,
    STREAM_MESSAGE_BYTES_MAX,
)
from uplift_server.delivery.ports import Clock
from uplift_server.delivery.streams.link import NOT_FOUND, Link, NatsServer, StreamError, StreamUnavailable, log_fields
from uplift_server.observe.snapshot import StreamReading
from uplift_server.store import database_identity
from uplift_server.store.contract import Database
from uplift_server.store.errors import Unavailable

CHECK_EVERY_MS: Final = 1_000
STORED_CHECK_MS: Final = 50
FAILED_CHECKS_MAX: Final = 2
"""The number of consecutive failed checks after which the process connects to another NATS server."""
RECONNECT_MS_MIN: Final = 100
RECONNECT_MS_MAX: Final = 2_000
SILENT_SECONDS_MAX: Final = 5
"""The maximum time without contact with a replica, in seconds.

If the time is exceeded for most replicas, the leader cannot store messages.
"""
DOWN_AFTER_MS: Final = 4_000
"""The time without a successful check after which the stream is considered down, in ms.

NATS usually elects a new leader in less time.
"""
UNAVAILABLE: Final = 503
SERVER_VERSION_MIN: Final = (2, 15, 0)
"""The minimum version of NATS.

Earlier versions keep a record of each message that is removed without an acknowledgment.
"""
CREATE_SECONDS: Final = 5.0
"""The timeout for the creation of a stream, in seconds. NATS must first select the servers for the stream."""
_NS: Final = 1_000_000_000
_log = structlog.get_logger()

EVENTS_CONFIG: Final[Mapping[str, object]] = {
    "name": EVENTS_STREAM,
    "description": "Events that are not in the database of Uplift Webhooks yet",
    "subjects": [EVENTS_SUBJECTS],
    "retention": "workqueue",
    "storage": "file",
    "discard": "new",
    "max_bytes": STREAM_BYTES_MAX,
    "max_age": 0,
    "max_msg_size": -1,
    "max_msgs_per_subject": -1,
    "allow_rollup_hdrs": False,
    "deny_purge": False,
    "sealed": False,
    "duplicate_window": STREAM_DUPLICATES_SECONDS * _NS,
}
REJECTED_CONFIG: Final[Mapping[str, object]] = {
    "name": REJECTED_STREAM,
    "description": "Events that Uplift Webhooks rejected after they were published",
    "subjects": [REJECTED_SUBJECTS],
    "retention": "limits",
    "storage": "file",
    "discard": "old",
    "max_msg_size": -1,
    "max_bytes": REJECTED_STREAM_BYTES_MAX,
    "max_age": REJECTED_STREAM_SECONDS * _NS,
    "duplicate_window": STREAM_DUPLICATES_SECONDS * _NS,
}
CONFIGS: Final = (EVENTS_CONFIG, REJECTED_CONFIG)
_MUST_FIT: Final[Mapping[str, Sequence[str]]] = {
    EVENTS_STREAM: (
        "subjects", "retention", "storage", "discard", "max_age", "max_msg_size", "max_msgs_per_subject",
        "allow_rollup_hdrs", "deny_purge", "sealed",
    ),
    REJECTED_STREAM: ("subjects", "retention", "storage", "discard", "max_msg_size"),
}  # fmt: skip
"""For each stream, the settings that must have their configured values if the stream already exists.

With other values, NATS would lose or reject events, or keep messages that the server has removed.
"""


DATABASE: Final = "uplift_database"
"""The metadata of a stream that contains the ID of the database for whose server the stream was created."""


class StreamUnfit(Exception):
    """The configuration of a stream or of the NATS server does not meet this server's requirements."""

    def __init__(self, cause: str, how_to_fix: str) -> None:
        super().__init__(f"{cause}; {how_to_fix}")
        self.cause = cause
        self.how_to_fix = how_to_fix


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """The settings of the event stream."""

    servers: Sequence[NatsServer]
    replicas: int
    credentials_file: str | None

    @classmethod
    def from_config(cls, config: Config) -> "StreamSettings":
        """Return the settings of the event stream from a configuration that uses NATS."""
        assert config.nats_url is not None, "the event stream needs UPLIFT_NATS_URL"
        servers = [NatsServer.parse(url) for url in config.nats_url.split(",")]
        return cls(servers, config.nats_replicas, config.nats_credentials_file)


class LinkListener(Protocol):
    """The interface that receives each new connection to NATS."""

    async def connected(self, link: Link) -> None:
        """Use a new connection to NATS for all further messages. Raises StreamUnavailable."""


class EventStream:
    """The connection of this process to the event stream."""

    def __init__(self, settings: StreamSettings, clock: Clock, database: Database) -> None:
        self._settings = settings
        self._clock = clock
        self._database = database
        self._database_id: str | None = None
        self._listeners: list[LinkListener] = []
        self.link: Link | None = None
        """The current connection. None until the process has connected to a server and checked the streams."""
        self.reading: StreamReading | None = None
        self.tried = asyncio.Event()
        """An asyncio event that is set after the first attempt to connect."""
        self._seen_up_at = 0
        self._cause: str | None = "the connection is not established yet"
        self.unfit: StreamUnfit | None = None
        """Why the server cannot use NATS or its streams, according to the last check. None if it found no reason."""
        self._is_failing = False
        self._has_warned = False
        self._has_tried_rejected = False
        """Whether this process has tried to check the stream of rejected events."""

    def add_listener(self, listener: LinkListener) -> None:
        """Register a listener for new connections. The listener does not receive the current connection."""
        self._listeners.append(listener)

    def trouble(self) -> str | None:
        """Return the reason why the server cannot use the stream, or None.

        Also return None for DOWN_AFTER_MS after the last successful check, because NATS may be electing a new leader.
        """
        if self._cause is None or self._clock.now_ms() - self._seen_up_at <= DOWN_AFTER_MS:
            return None
        return self._cause

    async def wait_stored(self, within_ms: int) -> bool:
        """Wait until the database contains all events that are in the stream at the time of the call.

        Return False if the wait exceeds `within_ms`, or if the stream is unavailable.
        """
        until = self._clock.now_ms() + within_ms
        last: int | None = None
        while self.link is not None:
            try:
                reading = await read_stream(self.link, self._clock.now_ms())
            except (StreamUnavailable, StreamError):
                return False
            last = reading.last_seq if last is None else last
            if reading.first_seq > last or not reading.messages:
                return True
            if self._clock.now_ms() >= until:
                return False
            await self._clock.wait(self.link.closed, STORED_CHECK_MS)
        return False

    async def run(self, stopping: asyncio.Event) -> None:
        """Keep a connection open until the process stops or the task is cancelled."""
        wait_ms = RECONNECT_MS_MIN
        while not stopping.is_set():
            for server in random.sample(self._settings.servers, len(self._settings.servers)):
                try:
                    await self._use(server, stopping)
                    wait_ms = RECONNECT_MS_MIN
                except (StreamUnavailable, StreamUnfit) as error:
                    self._note_failed(error)
                if stopping.is_set():
                    return
            self.tried.set()
            await self._clock.wait(stopping, wait_ms)
            wait_ms = min(2 * wait_ms, RECONNECT_MS_MAX)

    async def _use(self, server: NatsServer, stopping: asyncio.Event) -> None:
        """Connect to a server, and use the connection until it fails. Raises StreamUnavailable or StreamUnfit."""
        link = await Link.connect(server, self._settings.credentials_file)
        try:
            await self._prepare(link)
            for listener in self._listeners:
                await listener.connected(link)
            self.link = link
            await self._watch(link, stopping)
        finally:
            self.link = None
            await link.close()

    async def _watch(self, link: Link, stopping: asyncio.Event) -> None:
        failed = 0
        while not stopping.is_set() and not link.closed.is_set():
            try:
                self._note_up(await read_stream(link, self._clock.now_ms()))
                self.tried.set()
                failed = 0
            except (StreamUnavailable, StreamError) as error:
                failed += 1
                self._note_failed(error)
                if failed >= FAILED_CHECKS_MAX:
                    return
            await self._clock.wait(link.closed, CHECK_EVERY_MS)
        if not stopping.is_set():
            raise StreamUnavailable(link.cause)

    async def _id_of_database(self) -> str:
        """Return the ID of the database. Raises StreamUnavailable."""
        if self._database_id is None:
            try:
                self._database_id = await self._database.read(database_identity.get)
            except Unavailable as error:
                raise StreamUnavailable(str(error)) from error
        return self._database_id or ""

    async def _prepare(self, link: Link) -> None:
        """Create missing streams, and check the existing streams. Raises StreamUnavailable or StreamUnfit.

        A process also accepts events while the stream of rejected events has no leader. The consumer checks that stream
        again before it publishes a rejected event.
        """
        await self.check(link, EVENTS_CONFIG)
        if not self._has_tried_rejected:
            try:
                await self.check(link, REJECTED_CONFIG)
            except StreamUnavailable as error:
                if error.how_to_fix:
                    raise
            self._has_tried_rejected = True
        try:
            reading = await read_stream(link, self._clock.now_ms())
        except StreamError as error:
            raise StreamUnavailable(str(error)) from error
        self.unfit = None
        if reading.replicas != self._settings.replicas and not self._has_warned:
            self._has_warned = True
            _log.warning(
                "stream replicas differ from UPLIFT_NATS_REPLICAS",
                replicas=reading.replicas,
                configured_replicas=self._settings.replicas,
                how_to_fix=f"run `nats stream edit {EVENTS_STREAM} --replicas {self._settings.replicas}`, or change"
                " UPLIFT_NATS_REPLICAS",
            )

    async def check(self, link: Link, config: Mapping[str, object]) -> None:
        """Create a stream, or check it if it exists. Raises StreamUnavailable or StreamUnfit."""
        await _create_missing(link, config, self._settings.replicas, await self._id_of_database())
        try:
            misfit = await check_streams(link, await self._id_of_database(), (config,))
        except StreamError as error:
            raise StreamUnavailable(str(error)) from error
        if misfit is not None:
            raise misfit

    def _note_up(self, reading: StreamReading) -> None:
        self.reading, self._cause, self._seen_up_at = reading, None, self._clock.now_ms()
        if self._is_failing:
            _log.warning("event stream recovered")
        self._is_failing = False

    def _note_failed(self, error: Exception) -> None:
        self._cause = str(error)
        self.unfit = error if isinstance(error, StreamUnfit) else None
        if not self._is_failing:
            _log.error("event stream unavailable", **log_fields(error))
        self._is_failing = True


async def check_streams(
    link: Link, database_id: str | None, configs: Sequence[Mapping[str, object]] = CONFIGS
) -> StreamUnfit | None:
    """Return the reason why the server cannot use the existing streams, or None.

    `database_id` is None if the database does not respond. Raises StreamUnavailable or StreamError.
    """
    if link.server_version < SERVER_VERSION_MIN:
        return StreamUnfit(
            f"the NATS server has version {'.'.join(map(str, link.server_version))}",
            f"upgrade all NATS servers to version {'.'.join(map(str, SERVER_VERSION_MIN))} or newer",
        )
    if link.message_bytes_max < STREAM_MESSAGE_BYTES_MAX:
        return StreamUnfit(
            f"max_payload of the NATS server is {link.message_bytes_max} bytes",
            f"set max_payload to at least {STREAM_MESSAGE_BYTES_MAX}, the size of the largest event message",
        )
    for config in configs:
        found: Mapping[str, Any] = (await link.call(f"STREAM.INFO.{config['name']}"))["config"]
        for field in _MUST_FIT[str(config["name"])]:
            if found.get(field) != config[field]:
                return StreamUnfit(
                    f"the setting {field} of the stream {config['name']} is {found.get(field)} but must be"
                    f" {config[field]}",
                    f"run `nats stream edit {config['name']}` to correct the setting, or delete the stream when no"
                    " events are left in the stream",
                )
        owner = (found.get("metadata") or {}).get(DATABASE)
        if database_id is not None and owner not in {None, database_id}:
            return StreamUnfit(
                f"the stream {config['name']} belongs to the server with the database {owner}, but this server's"
                f" database is {database_id}",
                "use another NATS account for each server; if this database replaces the other one, run `nats stream"
                f" edit {config['name']} --metadata {DATABASE}={database_id}`",
            )
    return None


async def _create_missing(link: Link, config: Mapping[str, object], replicas: int, database_id: str) -> None:
    """Create a stream for a database's server, unless it exists. Raises StreamUnavailable or StreamUnfit."""
    name = config["name"]
    try:
        await link.call(f"STREAM.INFO.{name}")
        return
    except StreamError as error:
        if error.code != NOT_FOUND:
            raise StreamUnavailable(str(error)) from error
    new = {**config, "num_replicas": replicas, "metadata": {DATABASE: database_id}}
    try:
        await link.call(f"STREAM.CREATE.{name}", new, seconds=CREATE_SECONDS)
    except StreamError as error:
        if error.code == UNAVAILABLE:
            raise StreamUnavailable(str(error)) from error
        fix = "check UPLIFT_NATS_REPLICAS, the limits of JetStream, and the permissions of the NATS user"
        raise StreamUnfit(f"NATS cannot create the stream {name}: {error}", fix) from error
    _log.info("NATS stream created", stream=name, replicas=replicas)


async def read_stream(link: Link, now: int) -> StreamReading:
    """Read the state of the event stream. Raises StreamUnavailable or StreamError."""
    found = await link.call(f"STREAM.INFO.{EVENTS_STREAM}")
    state, config, cluster = found["state"], found["config"], found.get("cluster") or {}
    # A NATS server that has lost the majority still responds, but names no leader, or names itself although it has no
    # contact with the other servers. A server outside a cluster also names itself as the leader.
    if not cluster.get("leader"):
        raise StreamUnavailable(
            "the stream has no leader: NATS is electing one, or too few NATS servers are running or connected"
        )
    peers = cluster.get("replicas") or ()
    silent = sum(int(each.get("active", 0)) > SILENT_SECONDS_MAX * _NS for each in peers)
    if 2 * silent > len(peers):
        raise StreamUnavailable("the NATS server that leads the stream has no connection to the other NATS servers")
    return StreamReading(
        now,
        int(state["messages"]),
        _unix_ms(state["first_ts"]) if state["messages"] else None,
        int(config.get("num_replicas", 1)),
        1 + sum(bool(each.get("current")) and not each.get("offline") for each in peers),
        int(state["first_seq"]),
        int(state["last_seq"]),
        int(state["bytes"]),
        int(config.get("max_bytes", -1)),
    )


def _unix_ms(text: str) -> int:
    """Convert a NATS timestamp to Unix ms. The timestamp can have nanoseconds and any UTC offset."""
    head, _, rest = text.partition(".")
    if not rest:
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    digits = len(rest) - len(rest.lstrip("0123456789"))
    return int(datetime.fromisoformat(f"{head}.{rest[:digits][:6].ljust(6, '0')}{rest[digits:]}").timestamp() * 1000)
