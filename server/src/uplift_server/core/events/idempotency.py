"""Idempotency keys: how a caller says that a request is one it has made before."""

from uplift_server.core.limits import IDEMPOTENCY_KEY_CHARACTERS_MAX
from uplift_server.core.problems import Problem

KEY_INVALID = "idempotency_key_invalid"


def check_key(text: str, field: str) -> Problem | None:
    """What is wrong with a key that came in this field, if anything."""
    if 1 <= len(text) <= IDEMPOTENCY_KEY_CHARACTERS_MAX and text.isprintable():
        return None
    message = f"An idempotency key has 1 to {IDEMPOTENCY_KEY_CHARACTERS_MAX} printable characters. Use a UUID."
    return Problem(field, KEY_INVALID, message)
