"""Guesses the original bytes of a body that was changed before its verification, for example by a JSON parser."""

import base64
import binascii
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain, islice, product
from typing import Final, Literal

EarlierForm = tuple[str, Literal["body_recoded", "body_reserialised"], bytes]

_MEMBERS: Final = ("id", "object", "type", "api_version", "created", "data")
_Separators = tuple[str, str]
_JAVASCRIPT: Final[_Separators] = (",", ":")
"""The separators that JavaScript and Uplift use in JSON."""
_COMPACT: Final[tuple[_Separators, ...]] = (_JAVASCRIPT, (", ", ": "))
"""The separators of one-line JSON: JavaScript's, then Python's."""
_INDENTATIONS: Final = ("  ", "    ", "\t")
_WRITTEN_AGAIN_BYTES_MAX: Final = 64 * 1024
_WRITTEN_AGAIN_DEPTH_MAX: Final = 32
"""Maximum nesting depth of a body that the module serializes again; `_WRITTEN_AGAIN_BYTES_MAX` is its maximum size.

Larger or deeper bodies take too long.
"""
_COMPACT_COST_MAX: Final = 60_000
_INDENTED_COST_MAX: Final = 120_000
"""Maximum total cost of a body's indented forms. `_COMPACT_COST_MAX` limits the total cost of its one-line forms.

The unit is the cost of serializing one JSON value. Each maximum corresponds to about 5 ms. An event of a few KiB
does not exceed either maximum.
"""
_BYTES_PER_VALUE: Final = 16
"""Number of body bytes that take as long to serialize as one JSON value."""


def earlier_forms(body: bytes) -> Iterator[EarlierForm]:
    """Yield the possible original bytes of a body that a proxy or the application changed.

    Each item contains a description of the change, a cause code and the original bytes.
    """
    for ending in (b"\n", b"\r\n", b" "):
        if body.endswith(ending):
            yield "a line break or space was added to the body", "body_recoded", body[: -len(ending)]
        yield "a line break or space was removed from the body", "body_recoded", body + ending
    yield "the line breaks of the body were changed", "body_recoded", body.replace(b"\n", b"\r\n")
    yield "the line breaks of the body were changed", "body_recoded", body.replace(b"\r\n", b"\n")
    yield "a byte order mark was added to the body", "body_recoded", body.removeprefix(b"\xef\xbb\xbf")
    with suppress(UnicodeError):
        yield "the body was decoded as Latin-1 and encoded as UTF-8", "body_recoded", body.decode().encode("latin-1")
    with suppress(UnicodeError):
        yield "the body was decoded as UTF-8 and encoded as Latin-1", "body_recoded", body.decode("latin-1").encode()
    with suppress(binascii.Error, ValueError):
        decoded = base64.b64decode(body, validate=True)
        yield "the body is still encoded as base64, for example by AWS API Gateway", "body_recoded", decoded
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return
    if isinstance(value, str):
        yield "the body was encoded as JSON twice", "body_reserialised", value.encode("utf-8", "surrogatepass")
        return
    if len(body) <= _WRITTEN_AGAIN_BYTES_MAX:
        yield from _written_again(value, len(body))


def _written_again(value: object, size: int) -> Iterator[EarlierForm]:
    """Yield common JSON forms of a value, the most likely form first. Yield fewer forms for larger values."""
    depths = _depths(value)
    if depths is None:
        return
    count = sum(depths)
    compact_max = _COMPACT_COST_MAX // (count + size // _BYTES_PER_VALUE + 1)
    indented_max = _INDENTED_COST_MAX // sum(depth * values for depth, values in enumerate(depths, 1))
    compact, indented = _arranged(value, _compact), _arranged(value, _indented)
    for written in (*islice(compact, compact_max), *islice(indented, indented_max)):
        yield "the body was parsed and serialized again as JSON", "body_reserialised", written


def _depths(value: object) -> list[int] | None:
    """Return the number of values at each depth, or None if the nesting is too deep."""
    counts: list[int] = []
    level = [value]
    while level:
        if len(counts) == _WRITTEN_AGAIN_DEPTH_MAX:
            return None
        counts.append(len(level))
        lists = [each for each in level if isinstance(each, list)]
        lists += [[*each.values()] for each in level if isinstance(each, dict)]
        level = [*chain.from_iterable(lists)]
    return counts


def _arranged(value: object, forms: Callable[[object], Iterator[bytes]]) -> Iterator[bytes]:
    """Yield JSON forms of a value. For an object, also yield forms with Uplift's member order and envelope format."""
    yield from forms(value)
    if not isinstance(value, dict):
        return
    # Restore Uplift's order of the members, because a program may have sorted them.
    ordered = {name: value[name] for name in (*_MEMBERS, *value) if name in value}
    if [*ordered] != [*value]:
        yield from forms(ordered)
    # Vary only the format of `data`, which the event's sender chose. The envelope has no spaces between its members.
    data = ordered.pop("data", None)
    envelope = json.dumps(ordered, ensure_ascii=False, separators=_JAVASCRIPT).encode("utf-8", "surrogatepass")
    for written in forms(data):
        yield b'%b,"data":%b}' % (envelope[:-1], written)


def _compact(value: object) -> Iterator[bytes]:
    """Yield the one-line forms: members in original and sorted order, non-ASCII characters unescaped and escaped."""
    for escaped, sort, separators in product((False, True), (False, True), _COMPACT):
        with suppress(ValueError, RecursionError):
            yield json.dumps(value, ensure_ascii=escaped, sort_keys=sort, separators=separators).encode()


def _indented(value: object) -> Iterator[bytes]:
    """Yield the indented forms: members in original and sorted order, non-ASCII characters unescaped and escaped."""
    for escaped, sort in product((False, True), repeat=2):
        with suppress(ValueError, RecursionError):
            text = json.dumps(value, ensure_ascii=escaped, sort_keys=sort, indent="\t")
            # Tabs in strings are escaped, so every unescaped tab is indentation.
            yield from (text.replace("\t", indentation).encode() for indentation in _INDENTATIONS)
