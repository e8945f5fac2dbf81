"""Sample events from the catalog, in the exact format that Uplift sends."""

import json
import os
import time
import uuid
from functools import cache
from importlib import resources
from typing import Any, Final

API_VERSION: Final = "01/01/2022"


def make_event(
    type: str = "movement.analytics.created",  # noqa: A002 - the envelope's own word
    *,
    data: Any = None,
    id: str | None = None,  # noqa: A002 - the envelope's own word
    created: int | None = None,
    test: bool = False,
    **changes: Any,
) -> bytes:
    """Return the body of an event. By default, the event has a new ID and the catalog's example as its data.

    `data` replaces the example. `changes` contains new values for fields in the example's `object`. Types outside the
    catalog require `data`. `created` is in Unix milliseconds (default: now). `test` marks the event as a test event.

    >>> make_event("athlete.updated", level="college", changed=["level"])       # doctest: +SKIP

    Raises:
        ValueError: the type is not in the catalog and `data` is missing, or the call has both `data` and changes.
    """
    if data is None:
        example = _examples().get(type)
        if example is None:
            raise ValueError(f"{type!r} is not in the catalog and has no example: pass data={{…}}.")
        data = {**example, "object": {**example["object"], **changes}}
    elif changes:
        raise ValueError(
            f"data replaces the example, so you cannot combine it with {', '.join(changes)}. "
            'Set these fields in data["object"] instead.'
        )
    now_ms = time.time_ns() // 1_000_000
    envelope = {
        "id": _new_id(now_ms) if id is None else id,
        "object": "event",
        "type": type,
        "api_version": API_VERSION,
        "created": now_ms if created is None else created,
        **({"test": True} if test else {}),
        "data": data,
    }
    return json.dumps(envelope, ensure_ascii=False, separators=(",", ":")).encode()


@cache
def _examples() -> dict[str, Any]:
    text = resources.files("uplift_webhooks.testing").joinpath("examples.json").read_text(encoding="utf-8")
    examples: dict[str, Any] = json.loads(text)
    return examples


def _new_id(now_ms: int) -> str:
    """Return a UUID version 7 (RFC 9562), as in the IDs of real events."""
    number = (now_ms << 80) | int.from_bytes(os.urandom(10), "big")
    number = number & ~(0xF << 76) | 0x7 << 76
    return str(uuid.UUID(int=number & ~(0x3 << 62) | 0x2 << 62))
