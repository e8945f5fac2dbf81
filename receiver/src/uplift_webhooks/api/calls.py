"""Calls as values, each described once; a noun makes them at once, or lets them be awaited.

A description is a method that returns a Call. Decorated with `verb`, it is the method that makes the call: of a
`Noun[Blocking]`, it returns what the call gives; of a `Noun[Awaited]`, it is a coroutine function.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from inspect import Signature, signature
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar, cast, get_args, overload

from uplift_webhooks.api.failures import ApiMisaddressed
from uplift_webhooks.api.pages import JsonObject, Page, Request, items, page_of, pages


class Blocking:
    """Calls return when they are done."""


class Awaited:
    """Calls are coroutines, each made in a thread of asyncio's pool."""


P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Way = TypeVar("Way", bound=Blocking | Awaited)


@dataclass(frozen=True)
class Call(Generic[R_co]):
    """One call of the API."""

    method: str
    path: str
    read: Callable[[str, object], R_co]
    """From the path and the answer's JSON to the result. Raises ApiMisaddressed."""
    query: Mapping[str, object] = field(default_factory=dict)
    """Those that are None are left out."""
    body: JsonObject | None = None
    idempotency_key: str | None = None

    def make(self, request: Request) -> R_co:
        """Make it. Raises ApiFailure."""
        # Without a key of the caller's own, `Client.request` makes one.
        headers = None if self.idempotency_key is None else {"idempotency-key": self.idempotency_key}
        return self.read(self.path, request(self.method, self.path, query=self.query, body=self.body, headers=headers))


class Noun(Generic[Way]):
    """What the API has calls about."""

    def __init__(self, request: Request, way: type[Way]) -> None:
        """Take what makes calls, and whether they are awaited."""
        self._request: Final = request
        self._awaited: Final = way is Awaited


class verb(Generic[P, R]):  # noqa: N801 - a decorator
    """A method from the description of its call."""

    def __init__(self, describe: Callable[Concatenate[Any, P], Call[R]]) -> None:
        """Take a function that returns the call; its docstring and its parameters become the method's."""
        self.describe: Final = describe
        self.__doc__ = describe.__doc__
        self._signature: Final = _of_methods(describe)

    @overload
    def __get__(self, noun: None, owner: type[Any]) -> "verb[P, R]": ...

    @overload
    def __get__(self, noun: Noun[Blocking], owner: type[Any]) -> Callable[P, R]: ...

    @overload
    def __get__(self, noun: Noun[Awaited], owner: type[Any]) -> Callable[P, Coroutine[Any, Any, R]]: ...

    def __get__(self, noun: Noun[Any] | None, owner: type[Any]) -> Any:
        """The method of one noun."""
        if noun is None:
            return self

        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            return self.describe(noun, *args, **kwargs).make(noun._request)  # noqa: SLF001 - a part of it

        async def run_in_thread(*args: P.args, **kwargs: P.kwargs) -> R:
            return await asyncio.to_thread(run, *args, **kwargs)

        method = run_in_thread if noun._awaited else run  # noqa: SLF001 - a part of it
        return _as_method(method, self.describe.__name__, self.__doc__, self._signature)


class every(Generic[P]):  # noqa: N801 - as property is
    """A method that gives everything of a list, from the one that gives a page of it."""

    def __init__(self, page: verb[P, Page]) -> None:
        """Take the method that gives one page; its parameters become this one's."""
        self._describe: Final = page.describe
        self.__doc__ = "Everything that `list` gives page by page: `limit` (200) at a time, from `cursor` on."
        self._signature: Final = _of_methods(page.describe).replace(return_annotation=Iterator[JsonObject])

    @overload
    def __get__(self, noun: None, owner: type[Any]) -> "every[P]": ...

    @overload
    def __get__(self, noun: Noun[Blocking], owner: type[Any]) -> Callable[P, Iterator[JsonObject]]: ...

    @overload
    def __get__(self, noun: Noun[Awaited], owner: type[Any]) -> Callable[P, AsyncIterator[JsonObject]]: ...

    def __get__(self, noun: Noun[Any] | None, owner: type[Any]) -> Any:
        """The method of one noun."""
        if noun is None:
            return self

        def found(*args: P.args, **kwargs: P.kwargs) -> Iterator[Page]:
            call = self._describe(noun, *args, **kwargs)
            return pages(noun._request, call.path, call.query)  # noqa: SLF001 - a part of it

        def run(*args: P.args, **kwargs: P.kwargs) -> Iterator[JsonObject]:
            return items(found(*args, **kwargs))

        async def run_in_threads(*args: P.args, **kwargs: P.kwargs) -> AsyncIterator[JsonObject]:
            left = found(*args, **kwargs)
            while (page := await asyncio.to_thread(next, left, None)) is not None:
                for item in page.data:
                    yield item

        method = run_in_threads if noun._awaited else run  # noqa: SLF001 - a part of it
        return _as_method(method, "iterate", self.__doc__, self._signature)


def _of_methods(describe: Callable[..., object]) -> Signature:
    """The signature of the method that makes what is described."""
    described = signature(describe)
    _, *own = described.parameters.values()
    [result] = get_args(described.return_annotation)
    return described.replace(parameters=own, return_annotation=result)


def _as_method(run: Any, name: str, about: str | None, of: Signature) -> Any:
    """A function that shows itself, to `help` for instance, as what it stands for."""
    run.__name__ = run.__qualname__ = name
    run.__doc__ = about
    run.__signature__ = of
    return run


def get(path: str, **query: object) -> Call[JsonObject]:
    """Read one object."""
    return Call("GET", path, _object, query)


def get_page(path: str, **query: object) -> Call[Page]:
    """Read one page of a list."""
    return Call("GET", path, page_of, query)


def post(path: str, body: JsonObject | None = None, *, idempotency_key: str | None = None) -> Call[JsonObject]:
    """Create something, or make something happen."""
    return Call("POST", path, _object, body=body, idempotency_key=idempotency_key)


def change(method: str, path: str, body: JsonObject) -> Call[JsonObject]:
    """Change something (`PATCH`), or put it in place of what was there (`PUT`)."""
    return Call(method, path, _object, body=body)


def delete(path: str) -> Call[None]:
    """Delete something."""
    return Call("DELETE", path, lambda _path, _answer: None)


def given(**fields: object) -> JsonObject:
    """What was given, without what was left out."""
    return {name: value for name, value in fields.items() if value is not None}


def texts(listed: Iterable[str] | None) -> list[str] | None:
    """What may be sent as a list of texts."""
    return None if listed is None else [*listed]


def _object(path: str, answer: object) -> JsonObject:
    if isinstance(answer, dict):
        return cast("JsonObject", answer)
    raise ApiMisaddressed(f"What answered for {path} is no Uplift Webhooks server: it gave no object.")
