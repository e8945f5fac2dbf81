"""Calls of the server's API, whose failures are those of a command."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final

from uplift_webhooks.api import ApiError, ApiUnreachable, Client
from uplift_webhooks.api.failures import ApiMisaddressed
from uplift_webhooks.api.pages import PAGE_ITEMS, items, pages
from uplift_webhooks.api.pages import segment as part_of_path
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.profiles import Access

TIMEOUT_SECONDS: Final = 20.0
"""More than the 5 s in which the server answers everything."""
SEARCHED_MAX: Final = 5000
"""How many of the newest items a beginning is looked for in."""
_SHOWN_MAX: Final = 5
_LISTS: Final = {f"/v1/{name}": f"`uplift {name}` lists them" for name in ("endpoints", "events", "deliveries")}
"""By path: how the items of a list are found, where a command shows them."""
_ASSIGNMENT: Final = re.compile(r"`([a-z_]+)` = `([^`]+)`")
_FIELD: Final = re.compile(r"`([a-z_]+)`")

_CODES: Final = {
    401: ExitCode.NOT_ALLOWED,
    403: ExitCode.NOT_ALLOWED,
    404: ExitCode.NOT_FOUND,
    409: ExitCode.FAILED,
    429: ExitCode.TRY_LATER,
    503: ExitCode.TRY_LATER,
}
_REMEDIES: Final = {
    401: "check the key: --api-key, UPLIFT_API_KEY or the profile",
    403: "use a key with the scope that is named",
    404: "list what there is with `uplift endpoints`, `uplift events` or `uplift deliveries`",
    409: "look at its present state, then decide",
    429: "try again in a moment",
    503: "try again in a moment",
}


class CallRefused(CliError):
    """The server refused a call. `status` is the answer's; `fields` has the code of what is wrong by its field.

    `problems` are field and message of each.
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
        """Keep what callers decide on."""
        super().__init__(cause, remedy, code)
        self.status = status
        self.fields = fields
        self.problems = problems


class Calls:
    """One server, as one key sees it."""

    def __init__(self, access: Access, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        """Raises CliError for an address or a key that cannot be used."""
        self.access = access
        try:
            self._client = Client(access.api_url, access.api_key, timeout_seconds=timeout_seconds, retries=0)
        except ValueError as error:
            raise CliError(
                str(error).rstrip("."), f"correct {_at_fault(str(error), access)}", ExitCode.USAGE
            ) from error

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def get(self, path: str, **query: object) -> Any:
        """Read an object or a page of a list; a query parameter that is None is left out."""
        return self._call("GET", path, query=query)

    def content(self, path: str) -> bytes:
        """What a GET answers, byte for byte."""
        with _told(self.access):
            return self._client.content(path)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Create something, or make something happen."""
        return self._call("POST", path, body=dict(body or {}))

    def delete(self, path: str) -> None:
        """Delete something."""
        self._call("DELETE", path)

    def items(self, path: str, *, limit: int, **query: object) -> Iterator[dict[str, Any]]:
        """The first `limit` items of a list, over as many pages as that takes."""
        found = pages(self._client.request, path, {**query, "limit": min(limit, PAGE_ITEMS)})
        with _told(self.access):
            yield from islice(items(found), limit)

    def one(self, path: str, noun: str, prefix: str, text: str) -> dict[str, Any]:
        """The item of a list that a person means by a whole id, or a unique beginning of one. Raises CliError."""
        try:
            found: dict[str, Any] = self.get(f"{path}/{segment(text)}")
        except CallRefused as error:
            # Not a whole id: the list tells.
            if error.status not in (404, 422):
                raise
        else:
            return found
        beginning = text if text.startswith(prefix) else prefix + text
        matches = [each for each in self.items(path, limit=SEARCHED_MAX) if str(each["id"]).startswith(beginning)]
        if not matches:
            remedy = f"give its id, or a unique beginning of it; {_LISTS.get(path, f'GET {path} lists them')}"
            raise CliError(f"there is no {noun} {text!r}", remedy, ExitCode.NOT_FOUND)
        if len(matches) > 1:
            ids = ", ".join(str(each["id"]) for each in matches[:_SHOWN_MAX])
            cause = f"{text!r} is the beginning of {len(matches)} ids"
            raise CliError(cause, f"give more of one: {ids}{' …' if len(matches) > _SHOWN_MAX else ''}", ExitCode.USAGE)
        return self.get(f"{path}/{segment(matches[0]['id'])}")  # type: ignore[no-any-return]

    def suggestion(self, name: str, *, groups_too: bool = False) -> str:
        """The event type that is nearest to what somebody wrote, or a group, where one may be given; else empty."""
        names = [str(each["name"]) for each in self.items("/v1/event-types", limit=SEARCHED_MAX)]
        # Whoever named a group where none is taken means a type of it.
        inside = [each for each in names if name.endswith(".*") and each.startswith(name[:-1])]
        groups = {f"{each.rsplit('.', count)[0]}.*" for each in names for count in range(1, each.count(".") + 1)}
        known = [*names, *sorted(groups)] if groups_too else names
        found = ([] if groups_too else inside) or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        return found[0] if found else ""

    def _call(self, method: str, path: str, **what: Any) -> Any:
        with _told(self.access):
            found = self._client.request(method, path, **what)
        if found is None and method != "DELETE":
            raise _misaddressed(self.access, "an empty response")
        return found


@contextmanager
def _told(access: Access) -> Iterator[None]:
    """Failures of the client as those of a command."""
    try:
        yield
    except ApiMisaddressed as error:
        raise CliError(_lower(str(error)), f"correct {access.url_origin}", ExitCode.USAGE) from error
    except ApiUnreachable as error:
        remedy = f"check {access.url_origin}, and that the server runs"
        raise CliError(_lower(str(error)), remedy, ExitCode.TRY_LATER) from error
    except ApiError as error:
        # All errors of the server have a code. Proxies have their own 429 and 5xx, but not 501.
        if not error.code and (error.status < 500 or error.status == 501) and error.status != 429:
            raise _misaddressed(access, str(error.status)) from error
        raise _refused(error) from error


def _misaddressed(access: Access, answer: str) -> CliError:
    """The error for an address where no Uplift Webhooks server responds."""
    cause = f"what answers at {access.api_url} is no Uplift Webhooks server: it answered {answer}"
    return CliError(cause, f"correct {access.url_origin}", ExitCode.USAGE)


def _at_fault(problem: str, access: Access) -> str:
    """Where what a client cannot use was found, by what it says about it."""
    if problem.startswith("The proxy"):
        return "HTTPS_PROXY, HTTP_PROXY or ALL_PROXY"
    return access.key_origin if problem.startswith("api_key") else access.url_origin


def _refused(error: ApiError) -> CallRefused:
    fields = {each.field: each.code for each in error.errors}
    problems = [(each.field, each.message) for each in error.errors]
    cause = "; ".join(f"{field}: {message}" for field, message in problems) or error.detail
    remedy = _REMEDIES.get(error.status) or (
        f"correct {' and '.join(fields) or 'the command'}" if error.status < 500 else "try again, or tell its operators"
    )
    if error.code == "account_required":
        remedy = "use a key of one account (sk_…)"
    if error.retry_after_seconds is not None:
        remedy = f"try again in {error.retry_after_seconds:g} s"
    code = _CODES.get(error.status, ExitCode.USAGE if error.status < 500 else ExitCode.FAILED)
    return CallRefused(cause, remedy, code, error.status, fields, problems)


@contextmanager
def options(**names: str) -> Iterator[None]:
    """Say of a refusal which argument or option it is about: by the names of the body's or query's fields."""
    try:
        yield
    except CallRefused as error:
        told = [f"{_place(field, names)}: {_words(message, names)}" for field, message in error.problems]
        error.cause = "; ".join(told) or _words(error.cause, names)
        wrong = dict.fromkeys(names.get(field.partition(".")[0], field) for field, _ in error.problems)
        if wrong:
            error.remedy = f"correct {' and '.join(wrong)}"
        raise


def _place(field: str, names: dict[str, str]) -> str:
    """Where something is wrong: the option, and where its value has parts with names, the part."""
    top, _, rest = field.partition(".")
    return f"{names.get(top, top)}{f' at {rest}' if rest and not rest.isdigit() else ''}"


def _words(message: str, names: dict[str, str]) -> str:
    """A message that speaks of options where the API's speaks of fields."""

    def assigned(found: re.Match[str]) -> str:
        return f"{names[found[1]]} {found[2]}" if found[1] in names else found[0]

    return _FIELD.sub(lambda found: names.get(found[1], found[0]), _ASSIGNMENT.sub(assigned, message))


def segment(text: str) -> str:
    """A part of a path, whatever characters a person typed. Raises CliError for what is none."""
    try:
        return part_of_path(text)
    except ValueError as error:
        remedy = "give an id, a unique beginning of one, or a name"
        raise CliError(f"{text!r} is no id or name", remedy, ExitCode.USAGE) from error


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".")
