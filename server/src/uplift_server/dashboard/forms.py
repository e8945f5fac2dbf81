"""What forms send: read within bounds, and asked for by name."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

from uplift_server.core.problems import Problem
from uplift_server.core.timestamps import parse_timestamp
from uplift_server.service.errors import Malformed, PayloadTooLarge
from uplift_server.service.idempotency import IdempotencyKey
from uplift_server.service.unfinished_bodies import Reservation

FORM_BYTES_MAX: Final = 512 * 1024
STRANGERS_FORM_BYTES_MAX: Final = 16 * 1024
"""Of somebody who is not signed in: reading a large form takes some 50 ms."""
FORM_FIELDS_MAX: Final = 500
ONCE_FIELD: Final = "once"
ONCE_BYTES: Final = 16

_OFFSET: Final = re.compile(r"(?:[zZ]|[+-]\d\d:?\d\d)$")
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")


class Form:
    """The fields of a form, or of a URL's query, as texts."""

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)

    def text(self, name: str) -> str:
        """A field without the white space around it; empty where it was not sent."""
        return self.raw(name).strip()

    def raw(self, name: str) -> str:
        """A field exactly as sent, its line breaks as \\n."""
        return self._values.get(name, [""])[-1].replace("\r\n", "\n")

    def optional(self, name: str) -> str | None:
        """The same; None where it is empty."""
        return self.text(name) or None

    def texts(self, name: str) -> list[str]:
        """Every value of a field that may be sent several times, the empty ones left out."""
        return [value for sent in self._values.get(name, []) if (value := sent.strip())]

    def lines(self, name: str) -> list[str]:
        """A text area's lines, the empty ones left out."""
        return [line for each in self.raw(name).split("\n") if (line := each.strip())]

    def flag(self, name: str) -> bool:
        """Whether a box is ticked."""
        return name in self._values

    def number(self, name: str, problems: list[Problem]) -> int | None:
        """A whole number, None where the field is empty. What is no number becomes a problem."""
        text = self.text(name)
        if not text:
            return None
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            problems.append(Problem(name, "wrong_type", "Write a whole number, or leave it empty."))
            return None
        return int(text)

    def instant(self, name: str, problems: list[Problem]) -> int | None:
        """An instant as Unix ms, None where the field is empty; without an offset it is in UTC."""
        text = self.text(name)
        if not text:
            return None
        if _DATE.fullmatch(text):
            text += "T00:00"
        zoned = text if _OFFSET.search(text) else f"{text}Z"
        try:
            return parse_timestamp(zoned)
        except ValueError:
            problems.append(Problem(name, "instant_invalid", "Write an instant in UTC, such as 2026-01-31T12:00."))
            return None

    def as_sent(self) -> Mapping[str, Sequence[str]]:
        """Everything, to fill the form in again."""
        return self._values


async def read_form(request: Request, reservation: Reservation, *, bytes_max: int = FORM_BYTES_MAX) -> Form:
    """The form of a request. Raises PayloadTooLarge, Malformed, RateLimited and Busy."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in {"application/x-www-form-urlencoded", ""}:
        raise Malformed("Forms are sent as application/x-www-form-urlencoded.")
    body = bytearray()
    try:
        with reservation:
            async for chunk in request.stream():
                body += chunk
                if len(body) > bytes_max:
                    raise PayloadTooLarge(f"A form may have {bytes_max // 1024} KiB.")
                reservation.grow_to(len(body))
    except ClientDisconnect:
        # The client does not read the response, and the log needs no line.
        raise Malformed("The request ended before its form was complete.") from None
    try:
        return Form(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FORM_FIELDS_MAX))
    except ValueError:
        raise Malformed(f"This is no form: send UTF-8 and at most {FORM_FIELDS_MAX} fields.") from None


def key_of(form: Form) -> IdempotencyKey | None:
    """How a form that creates something is recognised when it comes again, as browsers send it on a reload."""
    key = form.text(ONCE_FIELD)
    if not key:
        return None
    content = json.dumps(dict(form.as_sent()), sort_keys=True)
    return IdempotencyKey(key, hashlib.sha256(content.encode()).digest())


def by_field(problems: Sequence[Problem]) -> dict[str, str]:
    """What is wrong at each field, as one text; `secret.0` and the like stand at their first part."""
    found: dict[str, list[str]] = {}
    for problem in problems:
        found.setdefault(problem.field.partition(".")[0], []).append(problem.message)
    return {name: " ".join(dict.fromkeys(texts)) for name, texts in found.items()}
