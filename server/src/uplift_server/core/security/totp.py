"""Second factors: time-based codes from an authenticator app (RFC 6238), and recovery codes.

The time-based codes have 6 digits, use SHA-1 and change every 30 seconds, because all apps support these settings.
"""

import hashlib
import hmac
import re
from base64 import b32encode
from typing import Final
from urllib.parse import quote

SECRET_BYTES: Final = 20
"""The size, in bytes, of the key that the server and the app share (RFC 4226, section 4)."""
STEP_MS: Final = 30_000
DIGITS: Final = 6
SKEW_STEPS_MAX: Final = 1
"""The number of time steps before and after the current step whose codes are also valid, because the clocks of the
server and the app may differ."""
RECOVERY_CODES: Final = 10
"""The number of recovery codes that the server creates for a person."""
RECOVERY_BYTES: Final = 10
"""The number of random bytes in a recovery code. With 80 random bits, a fast hash is sufficient."""
CODE_CHARACTERS_MAX: Final = 40
"""Maximum number of characters in a code as entered, including spaces and hyphens."""

_GROUP_CHARACTERS: Final = 4
_SEPARATORS: Final = re.compile(r"[\s-]+")


def code_at(secret: bytes, step: int, digits: int = DIGITS) -> str:
    """Return the code for a time step (RFC 4226, section 5.3)."""
    mac = hmac.digest(secret, step.to_bytes(8, "big"), "sha1")
    start = mac[-1] & 0xF
    number = int.from_bytes(mac[start : start + 4], "big") & 0x7FFF_FFFF
    return f"{number % 10**digits:0{digits}}"


def step_at(now_ms: int) -> int:
    """Return the time step that contains a time (Unix ms)."""
    return now_ms // STEP_MS


def matching_step(secret: bytes, text: str, now_ms: int, *, after: int) -> int | None:
    """Return the time step of an entered code, or None if the code is wrong.

    Also return None for the codes of step `after` and earlier steps, because the person has already used the code of
    step `after`.
    """
    entered, current = normalize_code(text), step_at(now_ms)
    steps = range(max(after + 1, current - SKEW_STEPS_MAX), current + SKEW_STEPS_MAX + 1)
    found = [step for step in steps if hmac.compare_digest(code_at(secret, step).encode(), entered)]
    return found[0] if found else None


def key_text(secret: bytes) -> str:
    """Return the key as text that a person can enter in an app."""
    return b32encode(secret).decode()


def app_uri(secret: bytes, *, email: str, issuer: str) -> str:
    """Return the URI for the QR code. The app shows the email and the issuer."""
    names = f"{quote(issuer, safe='')}:{quote(email, safe='')}"
    return f"otpauth://totp/{names}?secret={key_text(secret)}&issuer={quote(issuer, safe='')}"


def recovery_code(random: bytes) -> str:
    """Return a recovery code that contains these random bytes. Pass RECOVERY_BYTES bytes."""
    text = b32encode(random).decode().lower()
    return "-".join(text[at : at + _GROUP_CHARACTERS] for at in range(0, len(text), _GROUP_CHARACTERS))


def recovery_digest(person_id: bytes, text: str) -> bytes:
    """Return the digest of a recovery code. The database stores only the digest."""
    return hashlib.sha256(person_id + normalize_code(text)).digest()


def normalize_code(text: str) -> bytes:
    """Return the first CODE_CHARACTERS_MAX characters of an entered code, in lower case, without spaces and hyphens."""
    return _SEPARATORS.sub("", text[:CODE_CHARACTERS_MAX]).lower().encode("utf-8", "replace")
