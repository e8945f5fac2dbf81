"""People: their mail addresses, names and passwords, and how long what lets them in does so."""

import hmac
import unicodedata
from typing import Final

from uplift_server.core.limits import EMAIL_CHARACTERS_MAX
from uplift_server.core.problems import Problem

PASSWORD_CHARACTERS_MIN: Final = 10
PASSWORD_CHARACTERS_MAX: Final = 200
_DIFFERENT_CHARACTERS_MIN: Final = 5
GUEST_NAME: Final = "Portal guest"
"""Who came through a portal link that names nobody."""

_MINUTE_MS: Final = 60_000
_HOUR_MS: Final = 60 * _MINUTE_MS
_DAY_MS: Final = 24 * _HOUR_MS
SESSION_RANDOM_BYTES: Final = 32
SESSION_IDLE_MS: Final = 7 * _DAY_MS
SESSION_TTL_MS: Final = 30 * _DAY_MS
PORTAL_SESSION_TTL_MS: Final = 12 * _HOUR_MS
"""Of a session that a portal link began."""
SESSION_SEEN_EVERY_MS: Final = _HOUR_MS
"""That a session is used is written down no more often than this."""
SESSIONS_PER_PERSON_MAX: Final = 1_000
"""More end the oldest; guests of portal links share theirs."""
CONFIRMED_FOR_MS: Final = 10 * _MINUTE_MS
"""For how long a password counts as just given, which showing a secret wants."""

LINK_TTL_MS: Final = 5 * _MINUTE_MS
INVITATION_TTL_MS: Final = 7 * _DAY_MS
RESET_TTL_MS: Final = _HOUR_MS
ACCOUNTS_PER_PERSON_MAX: Final = 500
"""Accounts that one person is shown."""
MEMBERS_PER_ACCOUNT_MAX: Final = 500
INVITATIONS_PER_ACCOUNT_MAX: Final = 100


def normalize_email(text: str) -> str:
    """A mail address as people are told apart by it."""
    return text.strip()[: EMAIL_CHARACTERS_MAX + 1].lower()


def normalize_password(text: str) -> bytes:
    """What is hashed of a password: the same bytes however a keyboard puts its characters together (NFKC)."""
    return unicodedata.normalize("NFKC", text).encode("utf-8", "replace")


def check_password(text: str, email: str | None, field: str = "password") -> Problem | None:
    """What is wrong with a new password, if anything. Length is what makes one strong (NIST SP 800-63B)."""
    if len(text) < PASSWORD_CHARACTERS_MIN:
        reason = f"A password has at least {PASSWORD_CHARACTERS_MIN} characters, this one {len(text)}. Make it longer."
        return Problem(field, "password_short", reason)
    if len(text) > PASSWORD_CHARACTERS_MAX:
        reason = f"A password has at most {PASSWORD_CHARACTERS_MAX} characters, this one {len(text)}. Shorten it."
        return Problem(field, "password_long", reason)
    if len(set(text)) < _DIFFERENT_CHARACTERS_MIN or text.lower() in _easy_from(email):
        reason = "This password is guessed first: it is the mail address, or a few characters repeated. Take another."
        return Problem(field, "password_easy", reason)
    return None


def _easy_from(email: str | None) -> frozenset[str]:
    return frozenset() if email is None else frozenset({email, email.partition("@")[0]})


def csrf_token(cookie: str) -> str:
    """What every form of a session carries: it follows from the cookie, which no other site can read."""
    return hmac.digest(cookie.encode(), b"csrf", "sha256").hex()


def is_session_expired(now_ms: int, *, seen_at: int, ends_at: int) -> bool:
    """Whether a session has ended: at its end, or when nobody used it for SESSION_IDLE_MS (Unix ms)."""
    return now_ms >= ends_at or now_ms - seen_at >= SESSION_IDLE_MS


def is_confirmed(confirmed_at: int | None, now_ms: int) -> bool:
    """Whether the password was given within CONFIRMED_FOR_MS (Unix ms)."""
    return confirmed_at is not None and now_ms - confirmed_at < CONFIRMED_FOR_MS
