"""API calls for commands. A failed call raises a CliError that says how to fix the problem."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Final

from uplift_webhooks.api import ApiError, ApiFailure, Client
from uplift_webhooks.api import pages as paging
from uplift_webhooks.api.failures import ApiMisaddressed
from uplift_webhooks.cli.kit.errors import CliError, ExitCode

TIMEOUT_SECONDS: Final = 20.0
"""Timeout of a call, in seconds. The server responds within 5 s."""
_CODES: Final = {
    401: ExitCode.NOT_ALLOWED,
    403: ExitCode.NOT_ALLOWED,
    404: ExitCode.NOT_FOUND,
    409: ExitCode.FAILED,
    429: ExitCode.TRY_LATER,
    503: ExitCode.TRY_LATER,
}


@dataclass(frozen=True)
class Advice:
    """Texts that explain how to fix failed calls, with the names of a program's commands and options."""

    address: str
    """The source of the server's address, such as an option or a variable."""
    key: str
    """The source of the API key, such as an option or a variable."""
    unreachable: str
    """How to fix a call that gets no response."""
    server_error: str
    """How to fix an internal server error."""
    remedies: Mapping[int | str, str]
    """How to fix a rejected call. The keys are status codes and problem codes."""
    lists: Mapping[str, str] = field(default_factory=dict)
    """The commands that list objects. The keys are nouns, such as `endpoint`."""
    rewrite: Callable[[str], str] = str
    """Function that replaces API calls in an error message with the program's commands."""


class CallRejected(CliError):
    """The server rejected a call.

    `status` is the response's status code. `fields` maps each invalid field to its error code. `problems` contains
    pairs of a field and a message.
    """

    def __init__(
        self,
        cause: str,
        remedy: str,
        code: ExitCode,
        status: int,
        fields: Mapping[str, str],
        problems: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(cause, remedy, code)
        self.status = status
        self.fields = fields
        self.problems = problems


class Calls:
    """API calls to one server with one key."""

    def __init__(
        self,
        api_url: str,
        api_key: str,
        advice: Advice,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        use_proxy: bool = True,
        sends: bool = True,
    ) -> None:
        """`sends` is false for a server that does not send deliveries, such as a temporary server of `uplift-server`.

        Raises CliError for an invalid address or key.
        """
        self.api_url = api_url.rstrip("/")
        self.api_key = api_key
        self.advice = advice
        self.sends = sends
        try:
            self._client = Client(api_url, api_key, timeout_seconds=timeout_seconds, retries=0, use_proxy=use_proxy)
        except ValueError as error:
            place = advice.address
            if str(error).startswith("The proxy"):
                place = "HTTPS_PROXY, HTTP_PROXY or ALL_PROXY"
            elif str(error).startswith("api_key"):
                place = advice.key
            raise CliError(str(error).rstrip("."), f"correct {place}", ExitCode.USAGE) from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, path: str, *, account: str | None = None, **query: object) -> Any:
        """Read an object or a page of a list. Omits parameters that are None."""
        return self._call("GET", path, account, query=query)

    def content(self, path: str) -> bytes:
        """Return the unchanged body of the response to a GET request."""
        with self._reported():
            return self._client.content(path)

    def post(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        account: str | None = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """Create an object or start an action. Repeated calls with the same idempotency key have no effect."""
        headers = {} if idempotency_key is None else {"idempotency-key": idempotency_key}
        return self._call("POST", path, account, body=dict(body or {}), headers=headers)

    def patch(self, path: str, body: Mapping[str, Any], *, account: str | None = None) -> Any:
        """Update an object."""
        return self._call("PATCH", path, account, body=dict(body))

    def delete(self, path: str, *, account: str | None = None) -> None:
        """Delete an object."""
        self._call("DELETE", path, account)

    def items(self, path: str, *, limit: int, account: str | None = None, **query: object) -> Iterator[dict[str, Any]]:
        """Yield the first `limit` items of a list, from as many pages as needed."""
        request = partial(self._client.request, headers=_headers(account))
        found = paging.pages(request, path, {**query, "limit": min(limit, paging.PAGE_ITEMS)})
        with self._reported():
            yield from islice(paging.items(found), limit)

    def reconcile(
        self, cursor: str | None, types: Sequence[str] | None, created_after: str | None, *, at_least: int
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Return the account's events after `cursor`, oldest first, and the new cursor.

        Stops at the end of a page when `at_least` events have been read, or at the newest event.
        """
        with self._reported():
            run = self._client.reconcile(cursor, types, created_after=created_after)
            found: list[dict[str, Any]] = []
            has_more = True
            while has_more and len(found) < at_least:
                page = run._page()  # noqa: SLF001 - same package
                found += run._events_of(page)  # noqa: SLF001 - same package
                has_more = page.has_more
            return found, run.cursor

    def _call(self, method: str, path: str, account: str | None, **request: Any) -> Any:
        headers = {**request.pop("headers", {}), **_headers(account)}
        with self._reported():
            found = self._client.request(method, path, headers=headers, **request)
        if found is None and method != "DELETE":
            raise misaddressed(self.api_url, "it sent an empty response", self.advice)
        return found

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Convert API client errors in the block to CliError."""
        try:
            yield
        except ApiFailure as error:
            raise call_failure(error, self.api_url, self.advice) from error


def _headers(account: str | None) -> dict[str, str]:
    return {} if account is None else {"uplift-account": account}


def misaddressed(api_url: str, reason: str, advice: Advice) -> CliError:
    """Return the error for a server that is not an Uplift Webhooks server."""
    cause = f"the server at {api_url} is not an Uplift Webhooks server: {reason}"
    return CliError(cause, f"correct {advice.address}", ExitCode.USAGE)


def call_failure(error: ApiFailure, api_url: str, advice: Advice) -> CliError:
    """Return the CliError to report for a failed API call."""
    if isinstance(error, ApiMisaddressed):
        return CliError(_clause(str(error)), f"correct {advice.address}", ExitCode.USAGE)
    if not isinstance(error, ApiError):
        return CliError(_clause(str(error)), advice.unreachable, ExitCode.TRY_LATER)
    # Every error from the server has a code. A 429 or 5xx without a code (except 501) comes from a proxy.
    if not error.code and (error.status < 500 or error.status == 501) and error.status != 429:
        return misaddressed(api_url, f"it responded with {error.status}", advice)
    problems = [(each.field, advice.rewrite(each.message)) for each in error.errors]
    fields = {each.field: each.code for each in error.errors}
    cause = "; ".join(f"{field}: {message}" for field, message in problems) or advice.rewrite(error.detail)
    remedy = (
        advice.remedies.get(error.code)
        or advice.remedies.get(error.status)
        or (f"correct {' and '.join(fields) or 'the command'}" if error.status < 500 else advice.server_error)
    )
    if error.retry_after_seconds is not None:
        seconds = f"{error.retry_after_seconds:g}"
        remedy = f"try again in {seconds} second{'' if seconds == '1' else 's'}"
    code = _CODES.get(error.status, ExitCode.USAGE if error.status < 500 else ExitCode.FAILED)
    return CallRejected(cause, remedy, code, error.status, fields, problems)


def segment(text: str) -> str:
    """Return an ID or a name as one segment of a URL path. Raises CliError if the text cannot be a segment."""
    try:
        return paging.segment(text)
    except ValueError as error:
        remedy = "use an ID, a unique ID prefix, or a name"
        raise CliError(f"{text!r} is neither an ID nor a name", remedy, ExitCode.USAGE) from error


def _clause(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".")
