"""The parts of a process that use the event stream in NATS. A process has them only if UPLIFT_NATS_URL is set."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog

from uplift_server.app.cluster_parts import ClusteredFoundation
from uplift_server.app.engine_parts import EngineParts
from uplift_server.config import Config, ConfigError, ConfigProblem
from uplift_server.delivery.engine import Loop
from uplift_server.delivery.ports import Clock
from uplift_server.delivery.streams.consumer import StreamConsumer
from uplift_server.delivery.streams.ingest import StreamIngest
from uplift_server.delivery.streams.known_events import KnownEventFinder
from uplift_server.delivery.streams.ports import TraceSink
from uplift_server.delivery.streams.stream import EventStream, StreamSettings
from uplift_server.service.ingest import Ingest
from uplift_server.service.streamed_events import StreamedEvents
from uplift_server.store.contract import Database

CONNECT_MS: Final = 3_000
"""Maximum time in ms that a starting process waits for the stream.

After this time, the process starts without the stream and keeps trying to connect.
"""
FINISH_MS: Final = 4_500
"""Maximum time in ms that a stopping process waits for current requests and messages, which time out slightly
earlier."""
_log = structlog.get_logger()


class StreamParts:
    """A process's connection to the event stream, and the parts that publish and consume events."""

    def __init__(
        self,
        config: Config,
        database: Database,
        parts: EngineParts,
        clustered: ClusteredFoundation,
        clock: Clock,
        on_failure: Callable[[BaseException | None], None],
    ) -> None:
        """`on_failure` receives the error from a loop that ended unexpectedly."""
        self._database = database
        self._parts = parts
        self._clustered = clustered
        self._clock = clock
        self._on_failure = on_failure
        self.stream = EventStream(StreamSettings.from_config(config), clock, database)
        self._known = KnownEventFinder(database)
        self.ingest = StreamIngest(
            self.stream,
            parts.cache,
            parts.event_ingest,
            self._known,
            parts.event_ingest.ids,
            clock,
            parts.counters,
        )
        self._consumer: StreamConsumer | None = None
        self._stopping, self._consumer_stopping = asyncio.Event(), asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._consuming: asyncio.Task[None] | None = None

    def consume(self, ingest: Ingest, traces: TraceSink | None) -> None:
        """Create the consumer. It checks and stores events from the stream in the same way as events from requests."""
        self._consumer = StreamConsumer(
            self.stream,
            self._parts.cache,
            self._clustered.cluster.cache_sync,
            self._parts.event_ingest,
            StreamedEvents(ingest),
            self._database,
            self._clustered.jobs,
            self._clock,
            self._parts.counters,
            traces,
        )

    async def start(self) -> None:
        """Connect to the stream, and run the publisher and the consumer.

        If the connection does not succeed within CONNECT_MS, return and keep trying in the background. Raises
        ConfigError if the configuration of the NATS servers does not meet the requirements.
        """
        self._begin(Loop("event stream", self.stream.run))
        self._begin(Loop("event publisher", self.ingest.run))
        self._begin(Loop("event acknowledgments", self.ingest.watch))
        await self._clock.wait(self.stream.tried, CONNECT_MS)
        if self.stream.unfit is not None:
            unfit = self.stream.unfit
            raise ConfigError(
                ConfigProblem(
                    "UPLIFT_NATS_URL", f"names NATS servers that are not suitable: {unfit.cause}", unfit.how_to_fix
                )
            )
        if self._consumer is not None:
            self._consuming = self._begin(
                Loop("event stream consumer", self._consumer.run), stopping=self._consumer_stopping
            )

    def _begin(self, loop: Loop, *, stopping: asyncio.Event | None = None) -> "asyncio.Task[None]":
        run: Coroutine[Any, Any, None] = loop.run(stopping or self._stopping)
        task = asyncio.create_task(run, name=loop.name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if self._consumer_stopping.is_set() or task.cancelled():
            return
        error = task.exception()
        _log.critical("background loop ended", loop=task.get_name(), cause=str(error or "returned"), exc_info=error)
        self._on_failure(error)

    def close(self) -> None:
        """Reject new ingest requests."""
        self.ingest.close()

    @property
    def _has_work(self) -> bool:
        is_consuming = self._consuming is not None and not self._consuming.done()
        return is_consuming or self.ingest.waiting_events > 0

    async def stop(self) -> None:
        """Finish the current messages and requests within FINISH_MS, then disconnect."""
        self.close()
        self._consumer_stopping.set()
        until = self._clock.now_ms() + FINISH_MS
        while self._has_work and self._clock.now_ms() < until:
            await self._clock.wait(asyncio.Event(), 10)
        self._stopping.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._known.close()
