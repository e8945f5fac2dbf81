"""Details of audit log entries as text."""

from collections.abc import Iterable, Mapping
from typing import Final

_NOTHING: Final = "none"
_TEXT_CHARACTERS_MAX: Final = 300


def details_words(details: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return the details of an entry as labels and text. For an update, the text has the old and new values."""
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
    return [(_label(name), _value(name, value)) for name, value in details.items()]


def _label(name: str) -> str:
    return name.replace("_", " ")


def _value(name: str, value: object) -> str:
    return "all" if name == "event_types" and not value else _text(value)


def _text(value: object) -> str:
    """Return a value as truncated text."""
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
