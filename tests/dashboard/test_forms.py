"""Reading of submitted forms: values of fields, invalid values, and the size limit."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.requests import Request

from uplift_server.core.problems import Problem
from uplift_server.dashboard.forms import FORM_BYTES_MAX, FORM_FIELDS_MAX, Form, by_field, read_form
from uplift_server.service.errors import Malformed, PayloadTooLarge
from uplift_server.service.unfinished_bodies import UnfinishedBodies


def request(*chunks: bytes, content_type: str = "application/x-www-form-urlencoded") -> Request:
    messages: AsyncIterator[dict[str, Any]] = _messages(chunks)
    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", content_type.encode())]}
    return Request(scope, receive=messages.__anext__)


def read(given: Request) -> Form:
    """Read a form in another thread, because the browser's event loop runs in this one."""
    with ThreadPoolExecutor(1) as thread:
        reservation = UnfinishedBodies().reservation(None)
        reading = read_form(given, reservation, bytes_max=FORM_BYTES_MAX, advice="Shorten your input.")
        return thread.submit(asyncio.run, reading).result()


async def _messages(chunks: tuple[bytes, ...]) -> AsyncIterator[dict[str, Any]]:
    for number, chunk in enumerate(chunks):
        yield {"type": "http.request", "body": chunk, "more_body": number < len(chunks) - 1}


def test_fields_are_texts_lines_lists_and_checkboxes() -> None:
    form = read(request(b"url=+https%3A%2F%2Fa.example+&types=a&types=&types=b&h=A%3A+1%0D", b"%0A%0D%0AB%3A+2&on="))
    assert form.text("url") == "https://a.example"
    assert form.raw("url") == " https://a.example "
    assert form.texts("types") == ["a", "b"]
    assert form.lines("h") == ["A: 1", "B: 2"]
    assert form.flag("on")
    assert not form.flag("off")
    assert form.optional("on") is None
    assert form.as_sent()["types"] == ["a", "", "b"]


@pytest.mark.parametrize(
    ("text", "value", "wrong"),
    [("12", 12, 0), ("", None, 0), ("-1", None, 1), ("1.5", None, 1), ("٣", None, 1), ("9" * 19, None, 1)],
)
def test_an_invalid_number_is_reported(text: str, value: int | None, wrong: int) -> None:
    problems: list[Problem] = []
    assert Form([("limit", text)]).number("limit", problems) == value
    assert [each.field for each in problems] == ["limit"] * wrong


def test_an_oversized_form_is_rejected_before_it_is_complete() -> None:
    with pytest.raises(PayloadTooLarge):
        read(request(b"a=" + b"x" * FORM_BYTES_MAX, b"never read"))


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"a=\xff", "application/x-www-form-urlencoded"),
        (b"&".join([b"a=1"] * (FORM_FIELDS_MAX + 1)), "application/x-www-form-urlencoded"),
        (b"--x", "multipart/form-data; boundary=x"),
        (b"{}", "application/json"),
    ],
)
def test_an_invalid_form_is_rejected(body: bytes, content_type: str) -> None:
    with pytest.raises(Malformed):
        read(request(body, content_type=content_type))


def test_problems_are_grouped_by_field() -> None:
    problems = [Problem("url", "a", "One."), Problem("event_types.3", "b", "Two."), Problem("url", "c", "Three.")]
    assert by_field(problems) == {"url": "One. Three.", "event_types": "Two."}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2025-11-24T16:00", 1_764_000_000_000),
        ("2025-11-24T16:00:00.500", 1_764_000_000_500),
        ("2025-11-24T17:00+01:00", 1_764_000_000_000),
        ("2025-11-24T16:00:00Z", 1_764_000_000_000),
        ("2025-11-24", 1_763_942_400_000),
        ("", None),
    ],
)
def test_a_timestamp_is_in_utc_by_default(text: str, value: int | None) -> None:
    problems: list[Problem] = []
    assert Form([("at", text)]).instant("at", problems) == value
    assert problems == []


@pytest.mark.parametrize("text", ["yesterday", "2025-13-01", "2025-11-24T25:00", "0001-01-01T00:00+23:00", "24"])
def test_an_invalid_timestamp_is_reported(text: str) -> None:
    problems: list[Problem] = []
    assert Form([("at", text)]).instant("at", problems) is None
    assert [(each.field, each.code) for each in problems] == [("at", "instant_invalid")]
