"""Validation of idempotency keys."""

from uplift_server.core.limits import IDEMPOTENCY_KEY_CHARACTERS_MAX
from uplift_server.core.problems import Problem

KEY_INVALID = "idempotency_key_invalid"


def check_key(text: str, field: str) -> Problem | None:
    """Return the problem with an idempotency key, if any."""
    if 1 <= len(text) <= IDEMPOTENCY_KEY_CHARACTERS_MAX and text.isprintable():
        return None
    message = f"The idempotency key is not valid. Use 1 to {IDEMPOTENCY_KEY_CHARACTERS_MAX} printable characters."
    return Problem(field, KEY_INVALID, message)
