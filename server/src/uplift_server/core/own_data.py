"""Rules for the `uid` and the `metadata` that callers set on accounts and endpoints."""

import json
import re
from collections.abc import Mapping
from typing import Final

from uplift_server.core.limits import METADATA_BYTES_MAX, METADATA_VALUES_MAX, UID_CHARACTERS_MAX
from uplift_server.core.problems import Problem

_RESERVED: Final = ("acc_", "ep_")
"""Prefixes of IDs. A uid must not begin with such a prefix. Otherwise, the server could mistake the uid for an ID."""
_UID: Final = re.compile(rf"[A-Za-z0-9._-]{{1,{UID_CHARACTERS_MAX}}}")
# A uid must not be one of these path segments, because HTTP clients remove them from a URL.
_PATH_SEGMENTS: Final = frozenset({".", ".."})
_NOT_STORABLE: Final = re.compile("[\x00\ud800-\udfff]")


def is_uid(text: str) -> bool:
    """Return whether a string is a valid uid."""
    return check_uid(text) is None


def check_uid(text: str, field: str = "uid") -> Problem | None:
    """Return the problem with a uid, if any."""
    if not _UID.fullmatch(text) or text in _PATH_SEGMENTS:
        return Problem(
            field,
            "uid_invalid",
            f"The uid is not valid. Use 1 to {UID_CHARACTERS_MAX} letters, digits, periods, hyphens and underscores.",
        )
    if text.startswith(_RESERVED):
        text = "The uid starts with acc_ or ep_, which only generated IDs can have. Use another prefix."
        return Problem(field, "uid_reserved", text)
    return None


def check_metadata(values: Mapping[str, str]) -> list[Problem]:
    """Return the problems with metadata."""
    if len(values) > METADATA_VALUES_MAX:
        text = f"The metadata has {len(values)} values. Use at most {METADATA_VALUES_MAX}."
        return [Problem("metadata", "too_many", text)]
    if any(_NOT_STORABLE.search(name + value) for name, value in values.items()):
        text = "The metadata contains a NUL character or an unpaired surrogate. Remove this character."
        return [Problem("metadata", "characters_invalid", text)]
    size = len(_compact(values).encode())
    if size > METADATA_BYTES_MAX:
        text = f"The metadata has {size} bytes as JSON. Use at most {METADATA_BYTES_MAX}."
        return [Problem("metadata", "too_long", text)]
    return []


def metadata_text(values: Mapping[str, str]) -> str | None:
    """Return metadata as a JSON object for storage, or None if it is empty."""
    return _compact(values) if values else None


def metadata_of(text: str | None) -> dict[str, str]:
    """Return the metadata from a stored JSON object, or empty metadata if the object is None."""
    values: dict[str, str] = {} if text is None else json.loads(text)
    return values


def merged(stored: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    """Apply changes to metadata. None removes a key."""
    return {name: value for name, value in {**stored, **changes}.items() if value is not None}


def _compact(values: Mapping[str, str]) -> str:
    return json.dumps(dict(values), ensure_ascii=False, separators=(",", ":"))
