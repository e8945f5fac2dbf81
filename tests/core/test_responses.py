"""The first line of a response to a failed attempt, and the reason that the response names."""

import gc
from functools import _lru_cache_wrapper
from types import FunctionType, ModuleType
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.deliveries.causes import explain
from uplift_server.core.deliveries.outcomes import RESPONDED
from uplift_server.core.deliveries.responses import LINE_CHARACTERS_MAX, REASONS, first_line, reason_in
from uplift_webhooks.errors import Reason, WebhookVerificationError
from uplift_webhooks.frameworks.rejections import unverified


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", None),
        (b" \r\n\t", None),
        (b"<p></p>", None),
        (b"ok", "ok"),
        (b"\n  Not   allowed \r\nsecond line", "Not allowed"),
        ("Zugriff für Müller".encode(), "Zugriff für Müller"),
        (b'{\n  "message": "no",\n  "code": 7\n}', '{ "message": "no", "code": 7 }'),
        (
            b"<!doctype html><html><head><style>b{}</style><title>401 &amp; more</title></head><!-- x --><p>Sorry</p>",
            "401 & more Sorry",
        ),
        (b"<html><script>let a = '<b>'", None),
        (b"\x1b[31mred\x00 \xff\xe2\x80\xae", "?[31mred? \N{REPLACEMENT CHARACTER}?"),
        (b"&#27;[2J <b>", "&#27;[2J <b>"),
        (b"<b>\x1b&#27;[2J&#8238;", "?[2J?"),
        (b"<p>&#%b; &#%b" % (b"1" * 700, b"0" * 700), "\N{REPLACEMENT CHARACTER} \N{REPLACEMENT CHARACTER}"),
    ],
)
def test_a_response_has_one_line_for_people(body: bytes, expected: str | None) -> None:
    assert first_line(body) == expected


@pytest.mark.parametrize(
    "text",
    [
        "see https://user:hush-4711@a.example/x?t=hush-4711#hush-4711 now",
        "token=hush-4711",
        '{"api_key": "hush-4711"}',
        "Authorization: Bearer hush-4711, no",
        "Basic hush-4711",
        "expected whsec_hush+4711/aaaa",
        "session_id : hush-4711",
        "invalid secret: hush-hush-hush-hush-hush",
        "jwt eyJhbGciOiJub25l.hush-4711",
    ],
)
def test_secrets_are_masked(text: str) -> None:
    line = first_line(text.encode())
    assert line is not None
    assert "hush" not in line
    assert "********" in line


def test_words_are_not_masked() -> None:
    for text in ("invalid signature: timestamp too old", "Basic authentication required", "key: missing"):
        assert first_line(text.encode()) == text


@pytest.mark.parametrize("reason", get_args(Reason))
def test_each_code_of_the_library_is_known(reason: Reason) -> None:
    """The code is found even if the text is long or a framework wraps it."""
    text = unverified(WebhookVerificationError(reason, "The cause.", "The hint. " * 20)).content
    for body in (text, b'{"detail":"%b"}' % text, b"<h1>Error</h1><pre>%b</pre>" % text):
        line = first_line(body)
        assert line is not None
        assert len(line) <= LINE_CHARACTERS_MAX + len(reason) + 3
        assert reason_in(line) == reason
    assert set(get_args(Reason)) == set(REASONS)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Error: Message timestamp too old", "timestamp_too_old"),
        ("Message timestamp too new", "timestamp_too_new"),
        ("No matching signature found", "no_matching_signature"),
        ("Missing Required Headers", "missing_header"),
        ("Invalid Signature Headers", "malformed_header"),
        ("timestamp_too_old", None),
        ("Unauthorized", None),
        (None, None),
    ],
)
def test_reasons_of_standard_webhooks_libraries_are_known(text: str | None, reason: str | None) -> None:
    assert reason_in(text) == reason


@given(st.binary(max_size=3000) | st.text(max_size=2000).map(lambda text: f"<{text}".encode("utf-8", "replace")))
def test_any_response_has_a_bounded_and_printable_line(body: bytes) -> None:
    line = first_line(body)
    assert line is None or (line.isprintable() and 0 < len(line) <= LINE_CHARACTERS_MAX + 30)


def cached_texts() -> list[str]:
    """Return the texts that the caches of all loaded modules keep."""
    gc.unfreeze()  # get_objects omits frozen objects, and conftest.py freezes all modules
    found, waiting, seen = [], [each for each in gc.get_objects() if type(each) is _lru_cache_wrapper], set[int]()
    while waiting:
        each = waiting.pop()
        if isinstance(each, str | bytes):
            found.append(each if isinstance(each, str) else each.decode("utf-8", "replace"))
        elif id(each) not in seen and not isinstance(each, type | ModuleType | FunctionType):
            seen.add(id(each))
            waiting += gc.get_referents(each)
    return found


def test_no_cache_keeps_the_text_of_a_response() -> None:
    """An erasure must remove the text of responses from memory, too."""
    text = "Zebulon Quixwhistle is no athlete"
    for outcome in RESPONDED:
        line = first_line(text.encode())
        assert explain(outcome, status_code=None, error=line, location=text, response=line) is not None
    cached = cached_texts()
    assert cached
    assert not [each for each in cached if "quixwhistle" in each.lower()]
