"""Calls of the API whose failures are those of a command."""

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
"""More than the 5 s within which the server responds to every request."""
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
    """How to fix failed calls, in the words of one program."""

    address: str
    """Where the server's address is set."""
    key: str
    """Where the key is set."""
    unreachable: str
    """What to do if no server responds."""
    server_error: str
    """What to do about an internal error of the server."""
    remedies: Mapping[int | str, str]
    """What to do about a rejected call, by status or problem code."""
    lists: Mapping[str, str] = field(default_factory=dict)
    """The commands that list objects, by noun."""
    rewrite: Callable[[str], str] = str
    """Replaces calls of the API in its sentences by commands."""


class CallRejected(CliError):
    """The server rejected a call.

    `status` is the response's status code, `fields` has the error code of each invalid field, and `problems` are pairs
    of field and message.
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
    """Calls of one server with one key."""

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
        """`sends`: whether the server sends deliveries. Raises CliError for an address or a key that cannot be used."""
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
        """Read an object or a page of a list. Query parameters that are None are omitted."""
        return self._call("GET", path, account, query=query)

    def content(self, path: str) -> bytes:
        """The unchanged bytes of the response to a GET."""
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
        """Create an object, or start an action; with an idempotency key, only once."""
        headers = {} if idempotency_key is None else {"idempotency-key": idempotency_key}
        return self._call("POST", path, account, body=dict(body or {}), headers=headers)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """Update an object."""
        return self._call("PATCH", path, None, body=dict(body))

    def delete(self, path: str, *, account: str | None = None) -> None:
        """Delete an object."""
        self._call("DELETE", path, account)

    def items(self, path: str, *, limit: int, account: str | None = None, **query: object) -> Iterator[dict[str, Any]]:
        """The first `limit` items of a list, over as many pages as needed."""
        request = partial(self._client.request, headers=_headers(account))
        found = paging.pages(request, path, {**query, "limit": min(limit, paging.PAGE_ITEMS)})
        with self._reported():
            yield from islice(paging.items(found), limit)

    def _call(self, method: str, path: str, account: str | None, **request: Any) -> Any:
        headers = {**request.pop("headers", {}), **_headers(account)}
        with self._reported():
            found = self._client.request(method, path, headers=headers, **request)
        if found is None and method != "DELETE":
            raise misaddressed(self.api_url, "it sent an empty response", self.advice)
        return found

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Failures of the client as those of a command."""
        try:
            yield
        except ApiFailure as error:
            raise call_failure(error, self.api_url, self.advice) from error


def _headers(account: str | None) -> dict[str, str]:
    return {} if account is None else {"uplift-account": account}


def misaddressed(api_url: str, reason: str, advice: Advice) -> CliError:
    """The error for an address where another server responds."""
    cause = f"what answers at {api_url} is no Uplift Webhooks server: {reason}"
    return CliError(cause, f"correct {advice.address}", ExitCode.USAGE)


def call_failure(error: ApiFailure, api_url: str, advice: Advice) -> CliError:
    """The error of a command whose call failed."""
    if isinstance(error, ApiMisaddressed):
        return CliError(_clause(str(error)), f"correct {advice.address}", ExitCode.USAGE)
    if not isinstance(error, ApiError):
        return CliError(_clause(str(error)), advice.unreachable, ExitCode.TRY_LATER)
    # All errors of the server have a code. Proxies have their own 429 and 5xx, but not 501.
    if not error.code and (error.status < 500 or error.status == 501) and error.status != 429:
        return misaddressed(api_url, f"it answered {error.status}", advice)
    problems = [(each.field, advice.rewrite(each.message)) for each in error.errors]
    fields = {each.field: each.code for each in error.errors}
    cause = "; ".join(f"{field}: {message}" for field, message in problems) or advice.rewrite(error.detail)
    remedy = (
        advice.remedies.get(error.code)
        or advice.remedies.get(error.status)
        or (f"correct {' and '.join(fields) or 'the command'}" if error.status < 500 else advice.server_error)
    )
    if error.retry_after_seconds is not None:
        remedy = f"try again in {error.retry_after_seconds:g} s"
    code = _CODES.get(error.status, ExitCode.USAGE if error.status < 500 else ExitCode.FAILED)
    return CallRejected(cause, remedy, code, error.status, fields, problems)


def segment(text: str) -> str:
    """A part of a path. Raises CliError for text that cannot be one."""
    try:
        return paging.segment(text)
    except ValueError as error:
        remedy = "give an id, a unique beginning of one, or a name"
        raise CliError(f"{text!r} is no id or name", remedy, ExitCode.USAGE) from error


def _clause(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".")
