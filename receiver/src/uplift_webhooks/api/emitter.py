"""Send many events in the background, in order and without duplicates."""

import atexit
import logging
import os
import random
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from multiprocessing import parent_process
from multiprocessing.util import Finalize
from types import TracebackType
from typing import Final, TypeGuard

from uplift_webhooks.api.client import KEY_VARIABLE, Client, json_bytes
from uplift_webhooks.api.failures import ApiError, ApiFailure, ApiMisaddressed, ApiUnreachable, FieldError
from uplift_webhooks.api.pages import Instant, JsonObject

WAITING_EVENTS_MAX: Final = 10_000
WAITING_BYTES_MAX: Final = 32 * 1024 * 1024
BATCH_EVENTS_MAX: Final = 500
BATCH_BYTES_MAX: Final = 1024 * 1024
REQUEST_SECONDS_MAX: Final = 10.0
"""Time limit for a request, in seconds. The server responds to every request within 5 seconds."""
CLOSE_SECONDS_MAX: Final = 30.0
"""How long the emitter waits for responses when its `with` block or the process ends, in seconds."""
BACKOFF_SECONDS_MAX: Final = 10.0
WARN_EVERY_SECONDS: Final = 60.0
"""How often the emitter logs a warning while it repeats a request, in seconds."""
REJECTIONS_KEPT_MAX: Final = 100
_BACKOFF_SECONDS: Final = 0.2
_REJECTED: Final = frozenset({400, 409, 413, 415, 422})
"""Status codes of errors from the server that reject one or more events in a request."""
_STOPPED: Final = frozenset({401, 403, 404})
"""Status codes of errors from the server that reject the API key or the account."""
_TOO_LARGE: Final = 413
_TEMPORARY: Final = frozenset({408, 425, 429})
"""Status codes of temporary errors, in addition to 500 and all higher codes."""
_log: Final = logging.getLogger("uplift_webhooks.emitter")


@dataclass(frozen=True, slots=True)
class Rejection:
    """An event that the server did not accept."""

    type: str
    id: str | None
    """The `id` that the caller passed to `send`, or None."""
    idempotency_key: str | None
    error: ApiFailure
    """The cause: ApiError, ApiMisaddressed, or ApiUnreachable if the emitter was closed before the server responded.

    After ApiUnreachable, the server may have stored the event.
    """


class EventsRejected(ApiFailure):
    """The server did not accept some events."""

    count: int
    rejections: tuple[Rejection, ...]
    """The first events that the server did not accept, oldest first. At most REJECTIONS_KEPT_MAX."""

    def __init__(self, count: int, rejections: Sequence[Rejection]) -> None:
        """Set the attributes. Set `args`, too, so that pickle can copy the error."""
        self.rejections = tuple(rejections)
        self.count = count
        super().__init__(count, self.rejections)

    def __str__(self) -> str:
        """Return the number of rejected events and the first error, in one line."""
        first = self.rejections[0]
        rejected = f"The server did not accept {self.count} of the events."
        return f"{rejected} The first rejected event has the type {first.type}: {first.error}"


@dataclass(slots=True)
class _Waiting:
    """An event in memory that the server has not accepted or rejected yet."""

    body: bytes = field(repr=False)
    """The event as JSON."""
    type: str
    id: str | None
    idempotency_key: str | None
    future: "Future[JsonObject]" = field(default_factory=Future)


class Emitter:
    """Sends events in the background, in the order of the `send` calls. Thread-safe.

    The server stores each event once: every event has an idempotency key or your own `id`, so the emitter can safely
    repeat a request that got no response. One thread sends the waiting events in batches, one request at a time. While
    the server does not respond, events wait in memory, up to a limit. At the limit, `send` blocks. At the end of the
    `with` block or of the process, the emitter waits up to CLOSE_SECONDS_MAX for responses. If the process is killed,
    the events in memory are lost. To send an event if and only if your own transaction commits, use a transactional
    outbox (see the documentation of your server).

    >>> with Emitter("https://webhooks.example.com", "svc_…", account="acc_…") as emitter:   # doctest: +SKIP
    ...     emitter.send("athlete.created", {"object": {"id": "a1"}})
    """

    def __init__(
        self,
        api_url: str | None = None,
        key: str | None = None,
        account: str | None = None,
        *,
        waiting_events_max: int = WAITING_EVENTS_MAX,
        waiting_bytes_max: int = WAITING_BYTES_MAX,
        use_proxy: bool = True,
    ) -> None:
        """Create an emitter. Events belong to `account`, unless `send` names another account.

        With an account's own key (`sk_…`), events do not need an account. The environment variables `UPLIFT_API_URL`
        and `UPLIFT_API_KEY` set the default URL and key. `waiting_events_max` and `waiting_bytes_max` limit the events
        that wait in memory. Without `use_proxy`, the emitter ignores the proxy that environment variables set.

        Raises:
            ValueError: an argument or an environment variable is not valid.
        """
        if waiting_events_max < 1 or waiting_bytes_max < 1:
            raise ValueError("waiting_events_max and waiting_bytes_max must be greater than 0.")
        given = os.environ.get(KEY_VARIABLE, "").strip() if key is None else key
        self._needs_account: Final = not given.startswith("sk_")
        self._account: Final = account
        self._client: Final = Client(api_url, key, timeout_seconds=REQUEST_SECONDS_MAX, retries=0, use_proxy=use_proxy)
        self._events_max: Final = waiting_events_max
        self._bytes_max: Final = waiting_bytes_max
        self._begin()
        _emitters.add(self)
        atexit.register(self._exit)

    def _begin(self) -> None:
        """Initialize an empty queue, in a new emitter or in a forked process."""
        self._changed = threading.Condition()
        self._listeners: set[Callable[[], None]] = set()
        """Functions to call when events are accepted or rejected, and when the emitter is closed."""
        self._queue: deque[_Waiting] = deque()
        self._bytes = 0
        self._sent = 0
        self._ended = 0
        """Number of accepted, rejected or cancelled events. They are the first events in the order of `send`."""
        self._accepted = 0
        self._rejections: list[Rejection] = []
        self._rejected = 0
        self._thread: threading.Thread | None = None
        self._closing = False
        self._abandon = threading.Event()

    # ---- for callers

    def send(
        self,
        type: str,
        data: JsonObject,
        *,
        account: str | None = None,
        id: str | None = None,
        idempotency_key: str | None = None,
        ordering_key: str | None = None,
        expires_at: Instant | None = None,
    ) -> "Future[JsonObject]":
        """Queue an event. Return a future for the server's response: `id`, `created_at` and `duplicate`.

        Block while the queue is full. The future raises ApiError if the server rejects the event. You can ignore the
        future: `flush` and the end of the `with` block also report rejected events. If you cancel the future while the
        event is still waiting, the emitter does not send the event. If you pass neither `id` nor `idempotency_key`, the
        emitter generates an idempotency key. Endpoints whose `ordering` is "key" receive events with the same
        `ordering_key` in order.

        Raises:
            ValueError: an argument is not valid, or the emitter is closed.
            RuntimeError: the process cannot start the emitter's thread. The emitter does not queue the event.
        """
        waiting = self._event(type, data, account, id, idempotency_key, ordering_key, expires_at)
        self._put(waiting)
        return waiting.future

    def flush(self, timeout_seconds: float | None = None) -> None:
        """Wait until the server has responded to every event passed to `send` so far.

        Raises:
            EventsRejected: the server did not accept some events since the last `flush`.
            TimeoutError: some events still have no response.
        """
        with self._changed:
            target = self._sent
            self._changed.wait_for(lambda: self._ended >= target, timeout_seconds)
        self._report(target)

    def _report(self, target: int) -> None:
        """Raise TimeoutError if any of the first `target` events has no response.

        Otherwise, raise EventsRejected if the server rejected events since the last call.
        """
        with self._changed:
            if self._ended < target:
                raise TimeoutError(f"the server has not responded to {target - self._ended} of the events yet")
            count, kept = self._rejected, self._rejections
            self._rejected, self._rejections = 0, []
        if count:
            raise EventsRejected(count, kept)

    def close(self, timeout_seconds: float | None = CLOSE_SECONDS_MAX) -> None:
        """Send the queued events, then stop.

        After the timeout, the remaining events count as rejected, and their futures raise ApiUnreachable.

        Raises:
            EventsRejected: the server did not accept some events since the last `flush`.
            TimeoutError: the last request has no response yet.
        """
        with self._changed:
            self._closing = True
            self._notify()
            thread = self._thread
        if thread is not None:
            try:
                thread.join(timeout_seconds)
            finally:  # After an interrupt, the process must exit without another wait.
                self._abandon.set()
            thread.join(REQUEST_SECONDS_MAX)
        self._client.close()
        atexit.unregister(self._exit)
        self.flush(0)

    @property
    def accepted(self) -> int:
        """Number of accepted events, including duplicates."""
        return self._accepted

    @property
    def waiting(self) -> int:
        """Number of events that the server has not yet accepted or rejected."""
        return self._sent - self._ended

    def __enter__(self) -> "Emitter":
        """Return the emitter. The end of the `with` block closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the emitter. An error raised in the block takes precedence over an error from `close`."""
        try:
            self.close()
        except (EventsRejected, TimeoutError):
            if error is None:
                raise

    # ---- queue

    def _event(
        self,
        type: str,
        data: JsonObject,
        account: str | None,
        id: str | None,
        idempotency_key: str | None,
        ordering_key: str | None,
        expires_at: Instant | None,
    ) -> _Waiting:
        account = self._account if account is None else account
        if account is None and self._needs_account:
            raise ValueError("The event has no account. Pass account to send() or to the Emitter constructor.")
        if not isinstance(data, Mapping):
            raise ValueError("data must be a dictionary.")
        if id is None and idempotency_key is None:
            idempotency_key = uuid.uuid4().hex
        fields = {
            "type": type, "data": data, "id": id, "idempotency_key": idempotency_key, "expires_at": expires_at,
            "account": account, "ordering_key": ordering_key,
        }  # fmt: skip
        body = json_bytes({name: value for name, value in fields.items() if value is not None})
        return _Waiting(body, type, id, idempotency_key)

    def _put(self, waiting: _Waiting) -> None:
        with self._changed:
            # A future's callback runs in the sender's thread, which must not wait for itself.
            is_sender = threading.current_thread() is self._thread
            self._changed.wait_for(lambda: self._has_room(waiting) or self._closing or is_sender)
            self._append(waiting)

    def _put_now(self, waiting: _Waiting) -> bool:
        """Queue an event if the queue has room. Return False if the queue is full."""
        with self._changed:
            if not (has_room := self._has_room(waiting) or self._closing):
                return has_room
            self._append(waiting)
            return True

    def _has_room(self, waiting: _Waiting) -> bool:
        count = self._sent - self._ended
        return not count or (count < self._events_max and self._bytes + len(waiting.body) <= self._bytes_max)

    def _append(self, waiting: _Waiting) -> None:
        if self._closing:
            raise ValueError("The emitter is closed. Create a new emitter to send more events.")
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="uplift-emitter", daemon=True)
            # Start the thread before the event is queued, because this can fail. The thread waits until the caller
            # releases the lock.
            thread.start()
            self._thread = thread
            if parent_process() is not None:
                # Use `Finalize`, because processes that `multiprocessing` forks do not run `atexit` handlers.
                Finalize(None, self._exit, exitpriority=0)
        self._queue.append(waiting)
        self._sent += 1
        self._bytes += len(waiting.body)
        self._changed.notify_all()

    def _notify(self) -> None:
        self._changed.notify_all()
        for listener in list(self._listeners):
            listener()

    def _take(self) -> list[_Waiting] | None:
        """Wait for events, and return the next batch. Return None after the last batch."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            if not self._queue:
                return None
            batch, size = [self._queue.popleft()], 0
            size = len(batch[0].body)
            while self._queue and len(batch) < BATCH_EVENTS_MAX and size + len(self._queue[0].body) < BATCH_BYTES_MAX:
                batch.append(self._queue.popleft())
                size += len(batch[-1].body)
        return batch

    # ---- sender's thread

    def _run(self) -> None:
        while (batch := self._take()) is not None:
            self._deliver([each for each in batch if each.future.set_running_or_notify_cancel()])
            with self._changed:
                self._ended += len(batch)
                self._bytes -= sum(len(each.body) for each in batch)
                self._notify()

    def _deliver(self, batch: Sequence[_Waiting]) -> None:
        """Send a batch, and repeat the request until the server has accepted or rejected each event."""
        failures, reason, warn_at = 0, "", 0.0
        while batch:
            if self._abandon.is_set():
                text = f"The emitter was closed before the server accepted the event. {reason}"
                self._reject(batch, ApiUnreachable(text.rstrip()))
                return
            try:
                answers = self._request(batch)
            except ApiFailure as failure:
                if _is_about_events(failure):
                    batch = self._without_rejected(batch, failure)
                    continue
                if self._is_final(failure):
                    self._reject(batch, failure)
                    return
                reason = str(failure)
                if not failures or time.monotonic() >= warn_at:
                    warn_at = time.monotonic() + WARN_EVERY_SECONDS
                    _log.warning("events waiting: %d; request failed, retrying: %s", self.waiting, failure)
                self._abandon.wait(_wait_seconds(failure, failures))
                failures += 1
                continue
            if failures:
                _log.warning("event sending recovered")
            self._accepted += len(batch)
            for each, answer in zip(batch, answers, strict=True):
                each.future.set_result(answer)
            return

    def _request(self, batch: Sequence[_Waiting]) -> list[JsonObject]:
        """Send a batch in one request. Return the server's result for each event. Raises ApiFailure."""
        body = b'{"events":[' + b",".join(each.body for each in batch) + b"]}"
        answer = self._client.request("POST", "/v1/events/batch", body=body)
        answers = answer.get("data") if isinstance(answer, dict) else None
        if (
            not isinstance(answers, list)
            or len(answers) != len(batch)
            or not all(isinstance(each, dict) for each in answers)
        ):
            raise ApiMisaddressed(
                "The response to POST /v1/events/batch is not from an Uplift Webhooks server: it has no list of events."
            )
        return answers

    def _without_rejected(self, batch: Sequence[_Waiting], failure: ApiError) -> Sequence[_Waiting]:
        """Record the rejection of each event that the error names. Return the events that are still to be sent."""
        wrong: dict[int, list[FieldError]] = {}
        for error in failure.errors:
            place, _, name = error.field.removeprefix("events.").partition(".")
            if place.isdecimal() and int(place) < len(batch):
                wrong.setdefault(int(place), []).append(replace(error, field=name))
        if not wrong and len(batch) == 1:
            self._reject(batch, failure)
            return []
        if not wrong:  # Split the batch if the error, such as a 413, does not name an event.
            middle = len(batch) // 2
            self._deliver(batch[:middle])
            return batch[middle:]
        for index, errors in wrong.items():
            # Replace the detail of a 422, which gives the number of invalid fields in the whole batch.
            detail = "The event is not valid." if failure.status == 422 else failure.detail
            self._reject([batch[index]], ApiError(failure.status, failure.code, detail, errors))
        return [each for index, each in enumerate(batch) if index not in wrong]

    def _is_final(self, failure: ApiFailure) -> bool:
        """Return whether to reject the events instead of repeating the request.

        If the response is not from the server, the URL is wrong. After the server has accepted an event, the URL is
        right, and a proxy responds for the server for a while.
        """
        if not isinstance(failure, ApiError):
            return isinstance(failure, ApiMisaddressed) and not self._accepted
        if failure.code and failure.status >= 400:
            return failure.status in _STOPPED
        return failure.status < 500 and failure.status not in _TEMPORARY and not self._accepted

    def _reject(self, batch: Sequence[_Waiting], failure: ApiFailure) -> None:
        rejections = [Rejection(each.type, each.id, each.idempotency_key, failure) for each in batch]
        with self._changed:
            self._rejected += len(batch)
            self._rejections += rejections[: REJECTIONS_KEPT_MAX - len(self._rejections)]
        first, more = rejections[0], f" Other events with the same error: {len(batch) - 1}." if len(batch) > 1 else ""
        _log.error("event rejected: %s (%s): %s%s", first.type, first.id or first.idempotency_key, failure, more)
        for each in batch:
            each.future.set_exception(failure)

    def _exit(self) -> None:
        """Send the waiting events when the process ends. Log errors, because nothing can catch them."""
        try:
            self.close()
        except (EventsRejected, TimeoutError) as error:
            _log.error("emitter closed with errors at exit: %s", error)


def _is_about_events(failure: ApiFailure) -> TypeGuard[ApiError]:
    # Every error from the server has a code. A proxy can also reject a batch that is too large.
    return isinstance(failure, ApiError) and (
        failure.status == _TOO_LARGE or (bool(failure.code) and failure.status in _REJECTED)
    )


def _wait_seconds(failure: ApiFailure, failures: int) -> float:
    backoff: float = min(BACKOFF_SECONDS_MAX, _BACKOFF_SECONDS * 2 ** min(failures, 10))
    asked = failure.retry_after_seconds if isinstance(failure, ApiError) else None
    # Jitter spreads the requests of emitters that failed at the same time.
    jittered = backoff * (0.5 + random.random() / 2)  # noqa: S311 - no secret
    return jittered if asked is None else max(min(asked, BACKOFF_SECONDS_MAX), jittered)


def _begin_in_child() -> None:
    # Empty the queues: a forked process has no sender thread, and the parent process sends the waiting events.
    for emitter in list(_emitters):
        emitter._begin()  # noqa: SLF001 - same module


_emitters: Final["weakref.WeakSet[Emitter]"] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):  # pragma: no branch - not on Windows
    os.register_at_fork(after_in_child=_begin_in_child)
