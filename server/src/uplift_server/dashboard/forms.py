"""Reads submitted forms up to a size limit, and returns their fields by name."""

import asyncio
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

from uplift_server.core.problems import Problem
from uplift_server.core.texts import printable
from uplift_server.core.timestamps import parse_timestamp
from uplift_server.dashboard.security import CSRF_FIELD
from uplift_server.service.errors import Malformed, PayloadTooLarge
from uplift_server.service.idempotency import IdempotencyKey
from uplift_server.service.unfinished_bodies import Reservation
from uplift_server.service.versions import Versions

FORM_BYTES_MAX: Final = 512 * 1024
STRANGERS_FORM_BYTES_MAX: Final = 16 * 1024
"""Maximum size, in bytes, of a form from a visitor who has no session."""
ENDED_FORM_BYTES_MAX: Final = 64 * 1024
"""Maximum size, in bytes, of a form that a visitor submits after the session has ended."""
FORM_FIELDS_MAX: Final = 500
ONCE_FIELD: Final = "once"
ONCE_BYTES: Final = 16

_CHANGED_SINCE: Final = "Another person changed these settings after you opened this page."
_QUOTED_CHARACTERS_MAX: Final = 200
_OFFSET: Final = re.compile(r"(?:[zZ]|[+-]\d\d:?\d\d)$")
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")


class Form:
    """The text fields in a form or a URL query."""

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)

    def text(self, name: str) -> str:
        """Return a field without surrounding white space, or an empty string if it is missing."""
        return self.raw(name).strip()

    def raw(self, name: str) -> str:
        """Return a field as the browser sent it, but with line feeds instead of other line breaks."""
        return self._values.get(name, [""])[-1].replace("\r\n", "\n")

    def optional(self, name: str) -> str | None:
        """Return a field without surrounding white space, or None if it is empty or missing."""
        return self.text(name) or None

    def json_object(self, name: str) -> dict[str, Any] | None:
        """Return the JSON object in a field, or None if the field is empty.

        Raises ValueError if the text is not a JSON object.
        """
        text = self.text(name)
        if not text:
            return None
        try:
            found = json.loads(text)
        except RecursionError as error:
            raise ValueError(f"{name} has too many levels") from error
        if not isinstance(found, dict):
            raise ValueError(f"{name} is not an object")
        return found

    def texts(self, name: str) -> list[str]:
        """Return the non-empty values of a repeated field."""
        return [value for sent in self._values.get(name, []) if (value := sent.strip())]

    def lines(self, name: str) -> list[str]:
        """Return the non-empty lines of a text area."""
        return [line for each in self.raw(name).split("\n") if (line := each.strip())]

    def flag(self, name: str) -> bool:
        """Return whether the form contains this field.

        Browsers send the field of a checkbox only if the checkbox is selected.
        """
        return name in self._values

    def number(self, name: str, problems: list[Problem]) -> int | None:
        """Return the whole number in a field, or None if the field is empty. Add a problem for any other input."""
        text = self.text(name)
        if not text:
            return None
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            problems.append(Problem(name, "wrong_type", "Enter a whole number, or leave the field empty."))
            return None
        return int(text)

    def instant(self, name: str, problems: list[Problem]) -> int | None:
        """Return the timestamp in a field (Unix ms), or None if the field is empty.

        Add a problem if the text is not a timestamp. A timestamp without an offset is in UTC.
        """
        text = self.text(name)
        if not text:
            return None
        if _DATE.fullmatch(text):
            text += "T00:00"
        zoned = text if _OFFSET.search(text) else f"{text}Z"
        try:
            return parse_timestamp(zoned)
        except ValueError:
            problems.append(Problem(name, "instant_invalid", "Enter a UTC timestamp, such as 2026-01-31T12:00."))
            return None

    def without(self, prefix: str) -> "Form":
        """Return a copy of the form without the fields whose names begin with `prefix`."""
        kept = {name: sent for name, sent in self._values.items() if not name.startswith(prefix)}
        return Form((name, value) for name, sent in kept.items() for value in sent)

    def as_sent(self) -> Mapping[str, Sequence[str]]:
        """Return all fields with their values as sent."""
        return self._values


def seen_versions(form: Form) -> Versions:
    """Return the object version in the form, as a set. The service uses the version to detect concurrent updates.

    Return None if the form does not contain a version, for example because an earlier release rendered the page. The
    service then updates the object without this check.
    """
    version = form.optional("version")
    return None if version is None else frozenset({version})


def by_label(values: Mapping[str, str], labels: Mapping[str, str]) -> dict[str, str]:
    """Return the values of the fields in `labels`, by label."""
    return {label: values[name] for name, label in labels.items()}


def changed_since(sent: Mapping[str, str], current: Mapping[str, str]) -> str:
    """Return the message for a form whose object another person changed. It shows the current values that differ.

    `sent` and `current` contain the submitted and the current values by the labels of the fields.
    """
    texts = {label: _on_one_line(value) for label, value in current.items()}
    different = [
        f"{label}: {text if len(text) <= _QUOTED_CHARACTERS_MAX else text[:_QUOTED_CHARACTERS_MAX] + ' …'}"
        if text
        else f"{label}: none"
        for label, text in texts.items()
        if text != _on_one_line(sent.get(label, ""))
    ]
    if not different:
        return f"{_CHANGED_SINCE} Check the settings, and save again."
    return f"{_CHANGED_SINCE} To replace the current values, save again. Current values: {'; '.join(different)}."


def _on_one_line(text: str) -> str:
    return " ".join(printable(text, lines=True).split())


async def read_form(request: Request, reservation: Reservation, *, bytes_max: int, advice: str) -> Form:
    """Read the form in a request. Raises PayloadTooLarge, Malformed, RateLimited or Busy.

    The message of PayloadTooLarge contains `advice`.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in {"application/x-www-form-urlencoded", ""}:
        raise Malformed("The form has the wrong content type. Send application/x-www-form-urlencoded.")
    body = bytearray()
    try:
        with reservation:
            async for chunk in request.stream():
                body += chunk
                if len(body) > bytes_max:
                    raise PayloadTooLarge(f"The form is larger than {bytes_max // 1024} KiB. {advice}")
                reservation.grow_to(len(body))
    except ClientDisconnect:
        # A disconnected client does not read the response, so do not log this error.
        raise Malformed("The form is incomplete. Send it again.") from None
    try:
        # Parsing a large form takes about 50 ms, which would delay events.
        if len(body) > STRANGERS_FORM_BYTES_MAX:
            return await asyncio.to_thread(_parsed, body)
        return _parsed(body)
    except ValueError:
        raise Malformed(f"The form is invalid. Send UTF-8 and at most {FORM_FIELDS_MAX} fields.") from None


def _parsed(body: bytearray) -> Form:
    return Form(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FORM_FIELDS_MAX))


def key_of(form: Form) -> IdempotencyKey | None:
    """Return the idempotency key in a form, if any.

    If the visitor reloads the page and so submits the form again, the key prevents the creation of a second object.
    """
    key = form.text(ONCE_FIELD)
    if not key:
        return None
    content = json.dumps({name: sent for name, sent in form.as_sent().items() if name != CSRF_FIELD}, sort_keys=True)
    return IdempotencyKey(key, hashlib.sha256(content.encode()).digest())


def by_field(problems: Sequence[Problem]) -> dict[str, str]:
    """Return the messages of problems, grouped by form field.

    For example, a problem with `secret.0` belongs to the field `secret`.
    """
    found: dict[str, list[str]] = {}
    for problem in problems:
        found.setdefault(problem.field.partition(".")[0], []).append(problem.message)
    return {name: " ".join(dict.fromkeys(texts)) for name, texts in found.items()}
