"""The API client for asyncio programs."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import Any, Final

from uplift_webhooks.api.calls import Awaited
from uplift_webhooks.api.client import RETRIES, TIMEOUT_SECONDS, Client
from uplift_webhooks.api.everything import Everything
from uplift_webhooks.api.pages import Instant, JsonObject
from uplift_webhooks.api.reconciliation import Reconciliation


class AsyncReconciliation:
    """Async version of Reconciliation. Iterate over it with `async for`."""

    def __init__(self, run: Reconciliation) -> None:
        self._run: Final = run

    @property
    def cursor(self) -> str | None:
        """The cursor for the next reconciliation. Store it after you handle each event, and after the loop."""
        return self._run.cursor

    async def __aiter__(self) -> AsyncIterator[JsonObject]:
        """Yield the events after `cursor`. Raises ApiFailure if a request fails."""
        run, has_more = self._run, True
        while has_more:
            # The thread continues if the caller is cancelled, but only the loop below moves the cursor.
            page = await asyncio.to_thread(run._page)  # noqa: SLF001 - same package
            for event in run._events_of(page):  # noqa: SLF001 - same package
                yield event
            has_more = page.has_more


class AsyncClient(Everything[Awaited]):
    """Async version of Client. Every call runs in asyncio's default thread pool.

    If you cancel a call, its thread still completes the call with its retries. Each request takes at most
    `timeout_seconds`.
    """

    def __init__(
        self,
        api_url: str | None = None,
        api_key: str | None = None,
        *,
        account: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        retries: int = RETRIES,
        use_proxy: bool = True,
    ) -> None:
        """Accept the same arguments as `Client`."""
        self._client: Final = Client(
            api_url, api_key, account=account, timeout_seconds=timeout_seconds, retries=retries, use_proxy=use_proxy
        )
        super().__init__(self._client.request, Awaited)

    async def __aenter__(self) -> "AsyncClient":
        """Return the client. The end of the `async with` block closes it."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the client."""
        await self.close()

    async def close(self) -> None:
        """Close the idle connections."""
        await asyncio.to_thread(self._client.close)

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Make any API call, like `Client.request`."""
        return await asyncio.to_thread(self._client.request, method, path, query=query, body=body, headers=headers)

    async def content(self, path: str, *, query: Mapping[str, object] | None = None) -> bytes:
        """Return the bytes of the response to a GET request, like `Client.content`."""
        return await asyncio.to_thread(self._client.content, path, query=query)

    def reconcile(
        self,
        cursor: str | None = None,
        types: Iterable[str] | None = None,
        *,
        created_after: Instant | None = None,
        include_tests: bool = False,
    ) -> AsyncReconciliation:
        """Return an async iterable of all events in the account, like `Client.reconcile`."""
        run = self._client.reconcile(cursor, types, created_after=created_after, include_tests=include_tests)
        return AsyncReconciliation(run)
