"""Decorators that convert descriptions of API calls into methods that make the calls.

A noun is a class for one API resource, such as endpoints. A noun defines one method for each API call. Each method
returns a Call, which describes the API call. The decorator `verb` replaces the method with one that makes the API call.
In a `Noun[Blocking]`, the new method returns the result. In a `Noun[Awaited]`, it returns a coroutine.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from inspect import Signature, signature
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar, cast, get_args, overload

from uplift_webhooks.api.failures import ApiMisaddressed
from uplift_webhooks.api.pages import JsonObject, Page, Request, Versioned, items, page_of, pages


class Blocking:
    """Marks API resources whose methods block until the result is available."""


class Awaited:
    """Marks API resources whose methods are coroutines that run in asyncio's default thread pool."""


P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Way = TypeVar("Way", bound=Blocking | Awaited)


@dataclass(frozen=True)
class Call(Generic[R_co]):
    """The description of one API call: the request, and a function that reads the response."""

    method: str
    path: str
    read: Callable[[str, object], R_co]
    """Function that converts the decoded response to the result. The path (first argument) is for error messages.

    Raises ApiMisaddressed if the response does not have the expected form.
    """
    query: Mapping[str, object] = field(default_factory=dict)
    """Query parameters. The request omits parameters that are None."""
    body: JsonObject | None = None
    idempotency_key: str | None = None
    if_match: JsonObject | str | None = None

    def make(self, request: Request) -> R_co:
        """Make the API call. Raises ApiFailure if the server rejects the call or does not respond."""
        # Without an idempotency key, `Client.request` generates one.
        headers = {} if self.idempotency_key is None else {"idempotency-key": self.idempotency_key}
        if self.if_match is not None:
            headers["if-match"] = etag_of(self.if_match)
        return self.read(self.path, request(self.method, self.path, query=self.query, body=self.body, headers=headers))


class Noun(Generic[Way]):
    """An API resource and its calls."""

    def __init__(self, request: Request, way: type[Way]) -> None:
        """`request` makes the HTTP requests. `way` is Blocking or Awaited."""
        self._request: Final = request
        self._awaited: Final = way is Awaited


class verb(Generic[P, R]):  # noqa: N801 - a decorator
    """Decorator that converts a method: the original method describes a call, and the new method makes the call."""

    def __init__(self, describe: Callable[Concatenate[Any, P], Call[R]]) -> None:
        """`describe` is the original method. The new method has the same docstring and parameters."""
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
        """Return a method that makes this API call for a resource, such as endpoints."""
        if noun is None:
            return self

        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            return self.describe(noun, *args, **kwargs).make(noun._request)  # noqa: SLF001 - same module

        async def run_in_thread(*args: P.args, **kwargs: P.kwargs) -> R:
            return await asyncio.to_thread(run, *args, **kwargs)

        method = run_in_thread if noun._awaited else run  # noqa: SLF001 - same module
        return _as_method(method, self.describe.__name__, self.__doc__, self._signature)


class every(Generic[P]):  # noqa: N801 - as property is
    """Converts a method that returns one page of a list into a method that iterates over all items of the list."""

    def __init__(self, page: verb[P, Page]) -> None:
        """`page` is the method that returns one page. The new method has the same parameters."""
        self._describe: Final = page.describe
        self.__doc__ = "Iterate over all items of `list`, from `cursor`. `limit` is the page size (default 200)."
        self._signature: Final = _of_methods(page.describe).replace(return_annotation=Iterator[JsonObject])

    @overload
    def __get__(self, noun: None, owner: type[Any]) -> "every[P]": ...

    @overload
    def __get__(self, noun: Noun[Blocking], owner: type[Any]) -> Callable[P, Iterator[JsonObject]]: ...

    @overload
    def __get__(self, noun: Noun[Awaited], owner: type[Any]) -> Callable[P, AsyncIterator[JsonObject]]: ...

    def __get__(self, noun: Noun[Any] | None, owner: type[Any]) -> Any:
        """Return a method that iterates over all items in the list of an API resource, such as endpoints."""
        if noun is None:
            return self

        def found(*args: P.args, **kwargs: P.kwargs) -> Iterator[Page]:
            call = self._describe(noun, *args, **kwargs)
            return pages(noun._request, call.path, call.query)  # noqa: SLF001 - same module

        def run(*args: P.args, **kwargs: P.kwargs) -> Iterator[JsonObject]:
            return items(found(*args, **kwargs))

        async def run_in_threads(*args: P.args, **kwargs: P.kwargs) -> AsyncIterator[JsonObject]:
            left = found(*args, **kwargs)
            while (page := await asyncio.to_thread(next, left, None)) is not None:
                for item in page.data:
                    yield item

        method = run_in_threads if noun._awaited else run  # noqa: SLF001 - same module
        return _as_method(method, "iterate", self.__doc__, self._signature)


def _of_methods(describe: Callable[..., object]) -> Signature:
    """Return the signature of the method that makes the API call.

    Unlike the signature of `describe`, this signature has no `self`, and its return type is the type of the call's
    result.
    """
    described = signature(describe)
    _, *own = described.parameters.values()
    [result] = get_args(described.return_annotation)
    return described.replace(parameters=own, return_annotation=result)


def _as_method(run: Any, name: str, about: str | None, of: Signature) -> Any:
    """Set the name, the docstring and the signature of a function, for `help` and editors. Return the function."""
    run.__name__ = run.__qualname__ = name
    run.__doc__ = about
    run.__signature__ = of
    return run


def get(path: str, **query: object) -> Call[JsonObject]:
    """Describe a GET request that returns one object."""
    return Call("GET", path, _object, query)


def get_page(path: str, **query: object) -> Call[Page]:
    """Describe a GET request that returns one page of a list."""
    return Call("GET", path, page_of, query)


def post(
    path: str, body: JsonObject | None = None, *, idempotency_key: str | None = None, **query: object
) -> Call[JsonObject]:
    """Describe a POST request that creates an object or starts an action."""
    return Call("POST", path, _object, query, body, idempotency_key)


def change(method: str, path: str, body: JsonObject, if_match: JsonObject | str | None = None) -> Call[JsonObject]:
    """Describe a request that updates an object (`PATCH`) or replaces it (`PUT`)."""
    return Call(method, path, _object, body=body, if_match=if_match)


def etag_of(version: JsonObject | str) -> str:
    """Return the ETag of an object from an earlier response. If the argument is a string, return it unchanged.

    Raises ValueError if the object has no ETag.
    """
    if isinstance(version, str):
        return version
    if isinstance(version, Versioned):
        return version.etag
    raise ValueError("if_match must be an object from get, create, update or put, or an ETag.")


def delete(path: str) -> Call[None]:
    """Describe a DELETE request, which returns nothing."""
    return Call("DELETE", path, lambda _path, _answer: None)


def given(**fields: object) -> JsonObject:
    """Return a dictionary of the arguments that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def texts(listed: str | Iterable[str] | None) -> list[str] | None:
    """Return one or several strings as a list for JSON. If the argument is None, return None."""
    return [listed] if isinstance(listed, str) else None if listed is None else [*listed]


def several(value: str | int | Iterable[str | int] | None) -> str | int | list[str | int] | None:
    """Convert the value of a query parameter: return a single value unchanged, and several values as a list."""
    return value if value is None or isinstance(value, str | int) else [*value]


def _object(path: str, answer: object) -> JsonObject:
    if isinstance(answer, dict):
        return cast("JsonObject", answer)
    raise ApiMisaddressed(f"The response to {path} is not from an Uplift Webhooks server: it is not a JSON object.")
