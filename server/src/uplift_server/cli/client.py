"""A small client of the HTTP API, on the standard library: one connection, one request at a time."""

import http.client
import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from email.message import Message
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from uplift_server import __version__
from uplift_webhooks.cli.kit.errors import CliError, ExitCode

TIMEOUT_SECONDS: Final = 20.0
"""More than the 5 s in which the server answers everything."""
PAGE_ITEMS: Final = 200

_CODES: Final = {
    401: ExitCode.NOT_ALLOWED,
    403: ExitCode.NOT_ALLOWED,
    404: ExitCode.NOT_FOUND,
    409: ExitCode.FAILED,
    429: ExitCode.TRY_LATER,
    503: ExitCode.TRY_LATER,
}
_CALLS: Final = re.compile(r"GET /v1/((?:event-types|endpoints|accounts|deliveries)(?:/[a-z0-9_.]*[a-z0-9_])?)")
_REMEDIES_BY_CODE: Final = {
    "idempotency_conflict": "give another --idempotency-key, or send exactly what was sent with this one before",
}
REMEDY_WITHOUT_KEY: Final = (
    "set UPLIFT_OPERATOR_KEY to the one that the server was started with, or else to the one its first start printed"
)
_REMEDIES: Final = {
    401: REMEDY_WITHOUT_KEY,
    403: "use an operator key, or a key with the scope that is named",
    404: "list what there is with `uplift-server accounts`, `endpoints` or `deliveries`",
    409: "look at its present state, then decide",
    413: "send less at a time",
    429: "try again in a moment",
    503: "try again in a moment; `uplift-server doctor` tells more",
}


class ApiError(CliError):
    """The server refused a call. `status` is the answer's, `problem` its stable code.

    `fields` has the code of what is wrong by the field of the body or query where it is; `problems` are field and
    message of each.
    """

    def __init__(
        self,
        cause: str,
        remedy: str,
        code: ExitCode,
        status: int,
        problem: str,
        fields: Mapping[str, str],
        problems: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Keep what callers decide on."""
        super().__init__(cause, remedy, code)
        self.status = status
        self.problem = problem
        self.fields = fields
        self.problems = problems


class ApiClient:
    """Calls one server with one key. Not for several threads at a time."""

    def __init__(self, base_url: str, key: str | None, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        parts = urlsplit(base_url)
        self.base_url = base_url.rstrip("/")
        self.key = key
        self.sends = True
        """Whether the server sends what it stores; one made for a command's own moment does not."""
        self._path = parts.path.rstrip("/")
        connection = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = connection(parts.hostname or "", parts.port, timeout=timeout_seconds)

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()

    def get(self, path: str, *, account: str | None = None, **query: object) -> Any:
        """Read an object or a page of a list; a query parameter that is None is left out."""
        asked = {name: value for name, value in query.items() if value is not None}
        return self.call("GET", f"{path}?{urlencode(asked)}" if asked else path, account=account)

    def post(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        account: str | None = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """Create something, or make something happen; with a key, once however often it is asked for."""
        return self.call("POST", path, body or {}, account=account, idempotency_key=idempotency_key)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """Change something."""
        return self.call("PATCH", path, body)

    def delete(self, path: str, *, account: str | None = None) -> None:
        """Delete something."""
        self.call("DELETE", path, account=account)

    def check_ready(self) -> str | None:
        """The ID of the server's database, if the server is ready. Raises CliError."""
        status, headers, answer = self._exchange("GET", f"{self._path}/readyz", None, {})
        if status != 200:
            raise self._refused(status, headers.get("retry-after"), answer)
        if answer != b"ready\n":
            raise self._no_server_of_ours()
        return headers.get("uplift-database")

    def lives(self) -> bool:
        """Whether a server of ours is there, whatever it can do now. Raises CliError where nobody answers."""
        status, _, answer = self._exchange("GET", f"{self._path}/healthz", None, {})
        return (status, answer) == (200, b"ok\n")

    def items(self, path: str, *, limit: int, account: str | None = None, **query: object) -> Iterator[dict[str, Any]]:
        """The first `limit` items of a list, over as many pages as that takes."""
        cursor: str | None = None
        left = limit
        while left > 0:
            page = self.get(path, account=account, limit=min(left, PAGE_ITEMS), cursor=cursor, **query)
            yield from page["data"][:left]
            left -= len(page["data"])
            cursor = page["next_cursor"]
            # A page may be empty although more follow, where a filter passes over many others.
            if cursor is None:
                return

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        account: str | None = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """One request and its answer, decoded; None where it is empty. Raises CliError for all that can go wrong."""
        headers = {"accept": "application/json", "user-agent": f"uplift-server/{__version__}"}
        if self.key is not None:
            headers["authorization"] = f"Bearer {self.key}"
        if account is not None:
            headers["uplift-account"] = account
        content = None
        if body is not None:
            content = json.dumps(body).encode()
            headers["content-type"] = "application/json"
        if method == "POST":
            # A kept connection may have been closed under us; with a key, asking again does nothing twice.
            headers["idempotency-key"] = idempotency_key or uuid.uuid4().hex
        status, found, answer = self._exchange(method, self._path + path, content, headers)
        if not 200 <= status < 300:
            raise self._refused(status, found.get("retry-after"), answer)
        return self._decoded(answer)

    def _exchange(
        self, method: str, path: str, content: bytes | None, headers: dict[str, str]
    ) -> tuple[int, Message, bytes]:
        again = self._connection.sock is not None
        while True:
            try:
                self._connection.request(method, path, content, headers)
                response = self._connection.getresponse()
                return response.status, response.headers, response.read()
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
                self._connection.close()
                if not again:
                    raise self._unreachable(error) from error
                again = False
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> CliError:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return CliError(
            f"no server answers at {self.base_url} ({reason})",
            "start it with `uplift-server serve`, or set UPLIFT_HOST and UPLIFT_PORT as it has them",
            ExitCode.TRY_LATER,
        )

    def _decoded(self, answer: bytes) -> Any:
        try:
            return json.loads(answer) if answer else None
        except (ValueError, RecursionError) as error:
            raise self._no_server_of_ours() from error

    def _no_server_of_ours(self) -> CliError:
        return CliError(
            f"what answers at {self.base_url} is no Uplift Webhooks server", "correct UPLIFT_HOST and UPLIFT_PORT"
        )

    def _refused(self, status: int, retry_after: str | None, answer: bytes) -> ApiError:
        try:
            problem = json.loads(answer)
        except (ValueError, RecursionError):
            problem = None
        if not isinstance(problem, dict):
            problem = {}
        found = problem.get("errors")
        errors = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
        problems = [(str(each.get("field")), _for_the_shell(str(each.get("message")))) for each in errors]
        cause = "; ".join(f"{field}: {message}" for field, message in problems) or _for_the_shell(
            str(problem.get("detail") or problem.get("title") or f"the server answered {status}")
        )
        fields = {str(each.get("field")): str(each.get("code")) for each in errors}
        named = str(problem.get("code", ""))
        remedy = (
            _REMEDIES_BY_CODE.get(named)
            or _REMEDIES.get(status)
            or (f"correct {' and '.join(fields) or 'the command'}" if status < 500 else "look at the server's log")
        )
        if retry_after is not None and retry_after.isdigit():
            remedy = f"try again in {retry_after} s"
        code = _CODES.get(status, ExitCode.USAGE if status < 500 else ExitCode.FAILED)
        return ApiError(cause, remedy, code, status, named, fields, problems)


def _for_the_shell(text: str) -> str:
    """A sentence of the API, where it names calls with the commands that do the same."""
    return _CALLS.sub(lambda call: f"`uplift-server {call[1].replace('/', ' ')}`", text)


def segment(text: str) -> str:
    """A part of a path, whatever characters a person typed."""
    return quote(text, safe="")
