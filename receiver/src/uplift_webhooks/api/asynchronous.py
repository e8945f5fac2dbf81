"""The same client for programs on asyncio."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from types import TracebackType
from typing import Final, ParamSpec, TypeVar

from uplift_webhooks.api.client import RETRIES, TIMEOUT_SECONDS, Client
from uplift_webhooks.api.nouns import Deliveries, Endpoints, Events, EventTypes, ListenSessions
from uplift_webhooks.api.pages import Instant, JsonObject, Page
from uplift_webhooks.api.reconciliation import Reconciliation

P = ParamSpec("P")
R = TypeVar("R")


def _awaited(call: Callable[P, R]) -> Callable[P, Awaitable[R]]:
    """The call, made in another thread."""

    async def run(*args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.to_thread(call, *args, **kwargs)

    return run


def _items(call: Callable[P, Iterator[Page]]) -> Callable[P, AsyncIterator[JsonObject]]:
    """What is on the pages, each page fetched in another thread."""

    async def run(*args: P.args, **kwargs: P.kwargs) -> AsyncIterator[JsonObject]:
        pages = call(*args, **kwargs)
        while (page := await asyncio.to_thread(next, pages, None)) is not None:
            for item in page.data:
                yield item

    return run


class AsyncEndpoints:
    """Endpoints, to be awaited."""

    def __init__(self, calls: Endpoints) -> None:
        self.list = _awaited(calls.list)
        self.iterate = _items(calls.pages)
        self.get = _awaited(calls.get)
        self.create = _awaited(calls.create)
        self.update = _awaited(calls.update)
        self.delete = _awaited(calls.delete)
        self.pause = _awaited(calls.pause)
        self.enable = _awaited(calls.enable)
        self.test = _awaited(calls.test)
        self.secret = _awaited(calls.secret)
        self.rotate_secret = _awaited(calls.rotate_secret)


class AsyncEvents:
    """Events, to be awaited."""

    def __init__(self, calls: Events) -> None:
        self.list = _awaited(calls.list)
        self.iterate = _items(calls.pages)
        self.get = _awaited(calls.get)
        self.fetch = _awaited(calls.fetch)
        self.send = _awaited(calls.send)
        self.deliveries = _awaited(calls.deliveries)
        self.explain = _awaited(calls.explain)


class AsyncDeliveries:
    """Deliveries, to be awaited."""

    def __init__(self, calls: Deliveries) -> None:
        self.list = _awaited(calls.list)
        self.iterate = _items(calls.pages)
        self.get = _awaited(calls.get)
        self.attempts = _awaited(calls.attempts)
        self.resend = _awaited(calls.resend)
        self.cancel = _awaited(calls.cancel)


class AsyncEventTypes:
    """EventTypes, to be awaited."""

    def __init__(self, calls: EventTypes) -> None:
        self.list = _awaited(calls.list)
        self.iterate = _items(calls.pages)
        self.get = _awaited(calls.get)


class AsyncListenSessions:
    """ListenSessions, to be awaited."""

    def __init__(self, calls: ListenSessions) -> None:
        self.create = _awaited(calls.create)
        self.list = _awaited(calls.list)
        self.iterate = _items(calls.pages)
        self.get = _awaited(calls.get)
        self.answers = _awaited(calls.answers)
        self.test = _awaited(calls.test)
        self.delete = _awaited(calls.delete)


class AsyncReconciliation:
    """Reconciliation, with `async for`."""

    def __init__(self, run: Reconciliation) -> None:
        self._run: Final = run

    @property
    def cursor(self) -> str | None:
        """Store it when the event handed over last has been handled, and once more at the end."""
        return self._run.cursor

    async def __aiter__(self) -> AsyncIterator[JsonObject]:
        """Hand over what follows `cursor`. Raises ApiFailure."""
        events = iter(self._run)
        while (event := await asyncio.to_thread(next, events, None)) is not None:
            yield event


class AsyncClient:
    """Client, to be awaited: every call runs `Client`'s in a thread of asyncio's pool.

    A call that is cancelled is not waited for, but ends in its thread by itself, after `timeout_seconds` at the latest
    for each try.
    """

    def __init__(
        self,
        api_url: str | None = None,
        api_key: str | None = None,
        *,
        account: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        retries: int = RETRIES,
    ) -> None:
        """As `Client`."""
        self._client: Final = Client(
            api_url, api_key, account=account, timeout_seconds=timeout_seconds, retries=retries
        )
        self.endpoints: Final = AsyncEndpoints(self._client.endpoints)
        self.events: Final = AsyncEvents(self._client.events)
        self.deliveries: Final = AsyncDeliveries(self._client.deliveries)
        self.event_types: Final = AsyncEventTypes(self._client.event_types)
        self.listen_sessions: Final = AsyncListenSessions(self._client.listen_sessions)
        self.request: Final = _awaited(self._client.request)
        self.source_ips: Final = _awaited(self._client.source_ips)

    async def __aenter__(self) -> "AsyncClient":
        """The client itself, to be closed at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    async def close(self) -> None:
        """Let go of the kept connections."""
        await asyncio.to_thread(self._client.close)

    def reconcile(
        self,
        cursor: str | None = None,
        types: Iterable[str] | None = None,
        *,
        created_after: Instant | None = None,
    ) -> AsyncReconciliation:
        """As `Client.reconcile`."""
        return AsyncReconciliation(self._client.reconcile(cursor, types, created_after=created_after))
