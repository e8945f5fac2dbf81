"""Rules for people who use the dashboard: email addresses, passwords, sessions, links and invitations."""

import hmac
import unicodedata
from typing import Final

from uplift_server.core.limits import EMAIL_CHARACTERS_MAX
from uplift_server.core.problems import Problem

PASSWORD_CHARACTERS_MIN: Final = 10
PASSWORD_CHARACTERS_MAX: Final = 200
_DIFFERENT_CHARACTERS_MIN: Final = 5
GUEST_NAME: Final = "Portal guest"
"""The display name of a guest whose portal link contains no email address."""

_MINUTE_MS: Final = 60_000
_HOUR_MS: Final = 60 * _MINUTE_MS
_DAY_MS: Final = 24 * _HOUR_MS
SESSION_RANDOM_BYTES: Final = 32
SESSION_IDLE_MS: Final = 7 * _DAY_MS
SESSION_TTL_MS: Final = 30 * _DAY_MS
PORTAL_SESSION_TTL_MS: Final = 12 * _HOUR_MS
"""Maximum duration of a session that began with a portal link, in ms."""
SINGLE_SIGN_ON_SESSION_TTL_MS: Final = 12 * _HOUR_MS
"""Maximum duration of a session that began with single sign-on, in ms.

If the identity provider removes a person, the person loses access to the dashboard within this time.
"""
SESSION_SEEN_EVERY_MS: Final = _HOUR_MS
"""Minimum interval between two updates of a session's last use, in ms."""
SESSIONS_PER_PERSON_MAX: Final = 1_000
"""Maximum number of sessions per person.

A new session beyond this limit ends the oldest one. All portal guests share one limit.
"""
CONFIRMED_FOR_MS: Final = 10 * _MINUTE_MS
"""How long a password confirmation is valid, in ms. A person must confirm the password to reveal a secret."""

LINK_TTL_MS: Final = 5 * _MINUTE_MS
INVITATION_TTL_MS: Final = 7 * _DAY_MS
RESET_TTL_MS: Final = _HOUR_MS
ACCOUNTS_PER_PERSON_MAX: Final = 500
"""Maximum number of accounts that the dashboard lists for a person."""
MEMBERS_PER_ACCOUNT_MAX: Final = 500
INVITATIONS_PER_ACCOUNT_MAX: Final = 100
INVITATIONS_PER_SIGN_IN_MAX: Final = 20
"""Maximum number of pending invitations that the server accepts for a person during one sign-in."""


def normalize_email(text: str) -> str:
    """Return an email address in the form that identifies a person: trimmed, and in lower case if it is ASCII."""
    found = text.strip()[: EMAIL_CHARACTERS_MAX + 1]
    # Convert only ASCII: `lower` also turns the Kelvin sign into k, so it could turn one mailbox into another.
    return found.lower() if found.isascii() else found


def normalize_password(text: str) -> bytes:
    """Return a password as bytes for hashing. NFKC normalization makes the bytes independent of the keyboard."""
    return unicodedata.normalize("NFKC", text).encode("utf-8", "replace")


def check_password(text: str, email: str | None, field: str = "password") -> Problem | None:
    """Return the problem with a new password, if any.

    A password must have an allowed length and must not be easy to guess (NIST SP 800-63B).
    """
    if len(text) < PASSWORD_CHARACTERS_MIN:
        reason = f"The password has {len(text)} characters. Use at least {PASSWORD_CHARACTERS_MIN}."
        return Problem(field, "password_short", reason)
    if len(text) > PASSWORD_CHARACTERS_MAX:
        reason = f"The password has {len(text)} characters. Use at most {PASSWORD_CHARACTERS_MAX}."
        return Problem(field, "password_long", reason)
    if len(set(text)) < _DIFFERENT_CHARACTERS_MIN or text.lower() in _easy_passwords(email):
        reason = "The password is easy to guess. Do not use your email address or a few repeated characters."
        return Problem(field, "password_easy", reason)
    return None


def _easy_passwords(email: str | None) -> frozenset[str]:
    return frozenset() if email is None else frozenset({email, email.partition("@")[0]})


def csrf_token(cookie: str) -> str:
    """Return the CSRF token of a session.

    The token is derived from the session cookie. Other sites cannot read the cookie, so they cannot derive the token.
    """
    return hmac.digest(cookie.encode(), b"csrf", "sha256").hex()


def is_session_expired(now_ms: int, *, seen_at: int, ends_at: int) -> bool:
    """Return whether a session has ended or has been unused for SESSION_IDLE_MS. Times are Unix ms."""
    return now_ms >= ends_at or now_ms - seen_at >= SESSION_IDLE_MS


def is_confirmed(confirmed_at: int | None, now_ms: int) -> bool:
    """Return whether the person confirmed the password in the last CONFIRMED_FOR_MS. Times are Unix ms."""
    return confirmed_at is not None and now_ms - confirmed_at < CONFIRMED_FOR_MS
