"""The details of audit log entries as text."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from uplift_server.core.endpoint_settings import ENDPOINT_SETTINGS
from uplift_server.core.operations.fleet import named_causes
from uplift_server.core.timestamps import parse_timestamp

_NOTHING: Final = "none"
_DEFAULTS: Final = {each.name: each.default for each in ENDPOINT_SETTINGS}
"""The default of each endpoint setting, as text in the audit log."""
_TEXT_CHARACTERS_MAX: Final = 300
_TIMESTAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def details_words(details: Mapping[str, object]) -> list[tuple[str, str | int]]:
    """Return the details of an entry as pairs: a label, and a string or a timestamp (Unix ms).

    For an update, the string contains the old and new values.
    """
    before, after = details.get("from"), details.get("to")
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        changed = details.get("changed")
        names = [str(name) for name in changed] if isinstance(changed, list) else list(after)
        return [
            (
                _label(name),
                f"{_value(name, before[name])} → {_value(name, after[name])}" if name in after else "updated",
            )
            for name in names
        ]
    return [(_label(name), _time(value) or _value(name, value)) for name, value in details.items()]


def _label(name: str) -> str:
    return name.replace("_", " ")


def _time(value: object) -> int | None:
    """Return the value in Unix ms if it is a timestamp in the format of the audit log. Otherwise, return None."""
    if not isinstance(value, str) or not _TIMESTAMP.fullmatch(value):
        return None
    try:
        return parse_timestamp(value)
    except ValueError:
        return None


def _value(name: str, value: object) -> str:
    if name == "causes" and isinstance(value, Mapping):
        return _cut(named_causes({str(title): int(str(count)) for title, count in value.items()}))
    if name in _DEFAULTS and value is None:
        return _DEFAULTS[name]
    return "all" if name == "event_types" and not value else _text(value)


def _text(value: object) -> str:
    """Return a value as text of limited length."""
    if value is None or value in ("", [], {}):
        return _NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return _cut(", ".join(f"{_label(str(name))}: {_text(each)}" for name, each in value.items()))
    if isinstance(value, Iterable) and not isinstance(value, str):
        return _cut(", ".join(map(str, value)))
    return _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_CHARACTERS_MAX else f"{text[: _TEXT_CHARACTERS_MAX - 1]}…"
