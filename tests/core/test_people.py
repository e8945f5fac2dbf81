"""Emails, passwords and sessions of people."""

from uplift_server.core.people.people import (
    CONFIRMED_FOR_MS,
    PASSWORD_CHARACTERS_MAX,
    PASSWORD_CHARACTERS_MIN,
    SESSION_IDLE_MS,
    check_password,
    csrf_token,
    is_confirmed,
    is_session_expired,
    normalize_email,
    normalize_password,
)

DAY_MS = 86_400_000


def code(password: str, email: str | None = None) -> str | None:
    """Return the problem code of a password."""
    problem = check_password(password, email)
    assert problem is None or problem.field == "password"
    return None if problem is None else problem.code


def test_emails_are_normalized_to_lower_case_and_truncated() -> None:
    assert normalize_email("  Coach@Example.COM ") == "coach@example.com"
    assert len(normalize_email("a" * 10_000)) == 255


def test_equivalent_passwords_are_equal() -> None:
    assert normalize_password("cafe\u0301 ﬁve") == normalize_password("caf\u00e9 five") == "caf\u00e9 five".encode()
    assert normalize_password("half \ud800") == b"half ?"


def test_a_password_is_long_and_not_easy_to_guess() -> None:
    assert code("x" * (PASSWORD_CHARACTERS_MIN - 1)) == "password_short"
    assert code("correct horse") is None
    assert code("correct horse battery staple ".ljust(PASSWORD_CHARACTERS_MAX, "y")) is None
    assert code("correct horse".ljust(PASSWORD_CHARACTERS_MAX + 1, "y")) == "password_long"
    assert code("abababababab") == code("          ") == "password_easy"
    assert code("Coach.Ann1@example.com", "coach.ann1@example.com") == "password_easy"
    assert code("coach.ann1", "coach.ann1@example.com") == "password_easy"
    assert code("coach.ann1", "other@example.com") is None


def test_every_session_has_its_own_form_token() -> None:
    assert csrf_token("a") == csrf_token("a") != csrf_token("b")
    assert len(csrf_token("a")) == 64


def test_a_session_expires_at_its_end_or_when_unused() -> None:
    assert SESSION_IDLE_MS == 7 * DAY_MS
    assert not is_session_expired(9, seen_at=8, ends_at=10)
    assert is_session_expired(10, seen_at=8, ends_at=10)
    assert not is_session_expired(SESSION_IDLE_MS - 1, seen_at=0, ends_at=30 * DAY_MS)
    assert is_session_expired(SESSION_IDLE_MS, seen_at=0, ends_at=30 * DAY_MS)


def test_a_password_confirmation_lasts_ten_minutes() -> None:
    assert CONFIRMED_FOR_MS == 600_000
    assert not is_confirmed(None, 5)
    assert is_confirmed(5, CONFIRMED_FOR_MS + 4)
    assert not is_confirmed(5, CONFIRMED_FOR_MS + 5)
