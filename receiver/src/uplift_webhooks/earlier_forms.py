"""What a body may have been before something changed it on its way through a receiver."""

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
"""Uplift's, too."""
_COMPACT: Final[tuple[_Separators, ...]] = (_JAVASCRIPT, (", ", ": "))
"""JavaScript's and Python's."""
_INDENTATIONS: Final = ("  ", "    ", "\t")
_WRITTEN_AGAIN_BYTES_MAX: Final = 64 * 1024
_WRITTEN_AGAIN_DEPTH_MAX: Final = 32
"""Of a larger body, or one nested deeper, no other forms are tried: whoever sent it need not know the secret, and each
form costs what writing and signing the body does."""
_COMPACT_COST_MAX: Final = 60_000
_INDENTED_COST_MAX: Final = 120_000
"""Of all forms of one body: their values, with some of their bytes, and their values times their depths. Either takes
some 5 ms where strangers do their worst; events of a few KiB are tried in every form."""
_BYTES_AS_DEAR_AS_A_VALUE: Final = 16


def earlier_forms(body: bytes) -> Iterator[EarlierForm]:
    """What a body may have been before something changed it: what that was in words, its cause, and the bytes."""
    for ending in (b"\n", b"\r\n", b" "):
        if body.endswith(ending):
            yield "a line break or space was added to the body", "body_recoded", body[: -len(ending)]
        yield "a line break or space was cut off the body", "body_recoded", body + ending
    yield "the line breaks of the body were changed", "body_recoded", body.replace(b"\n", b"\r\n")
    yield "the line breaks of the body were changed", "body_recoded", body.replace(b"\r\n", b"\n")
    yield "a byte order mark was put before the body", "body_recoded", body.removeprefix(b"\xef\xbb\xbf")
    with suppress(UnicodeError):
        yield "the body was decoded as Latin-1 and encoded as UTF-8", "body_recoded", body.decode().encode("latin-1")
    with suppress(UnicodeError):
        yield "the body was decoded and encoded as Latin-1", "body_recoded", body.decode("latin-1").encode()
    with suppress(binascii.Error, ValueError):
        decoded = base64.b64decode(body, validate=True)
        yield "the body is still encoded as base64, as AWS API gateways pass it", "body_recoded", decoded
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
    """A value in the forms in which JSON is usually written, as many as its size allows, the likely ones first."""
    depths = _depths(value)
    if depths is None:
        return
    count = sum(depths)
    compact_max = _COMPACT_COST_MAX // (count + size // _BYTES_AS_DEAR_AS_A_VALUE + 1)
    indented_max = _INDENTED_COST_MAX // sum(depth * values for depth, values in enumerate(depths, 1))
    compact, indented = _arranged(value, _compact), _arranged(value, _indented)
    for written in (*islice(compact, compact_max), *islice(indented, indented_max)):
        yield "the body was parsed and written again as JSON", "body_reserialised", written


def _depths(value: object) -> list[int] | None:
    """How many values there are at each depth; None where it is nested too deep."""
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
    """A value in some forms; an event also in Uplift's order of members, and with Uplift's envelope around its data."""
    yield from forms(value)
    if not isinstance(value, dict):
        return
    # Where they were sorted.
    ordered = {name: value[name] for name in (*_MEMBERS, *value) if name in value}
    if [*ordered] != [*value]:
        yield from forms(ordered)
    # Uplift writes the envelope without spaces, around the data as whoever sent the event wrote that.
    data = ordered.pop("data", None)
    envelope = json.dumps(ordered, ensure_ascii=False, separators=_JAVASCRIPT).encode("utf-8", "surrogatepass")
    for written in forms(data):
        yield b'%b,"data":%b}' % (envelope[:-1], written)


def _compact(value: object) -> Iterator[bytes]:
    """In one line, with and without escapes beyond ASCII, with the order of its members and sorted."""
    for escaped, sort, separators in product((False, True), (False, True), _COMPACT):
        with suppress(ValueError, RecursionError):
            yield json.dumps(value, ensure_ascii=escaped, sort_keys=sort, separators=separators).encode()


def _indented(value: object) -> Iterator[bytes]:
    """In lines, with and without escapes beyond ASCII, with the order of its members and sorted."""
    for escaped, sort in product((False, True), repeat=2):
        with suppress(ValueError, RecursionError):
            text = json.dumps(value, ensure_ascii=escaped, sort_keys=sort, indent="\t")
            # Within strings, tabs are escaped: these are all of the indentation.
            yield from (text.replace("\t", indentation).encode() for indentation in _INDENTATIONS)
