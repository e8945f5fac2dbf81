"""Valid idempotency keys."""

import pytest

from uplift_server.core.events.idempotency import check_key


@pytest.mark.parametrize("text", ["a", "0197f0c2-5b1e-7c3a-9d5e-2f6a8b0c4d1e", "with spaces", "Größe 7", "x" * 255])
def test_a_key_is_any_short_printable_text(text: str) -> None:
    assert check_key(text, "idempotency_key") is None


@pytest.mark.parametrize("text", ["", "x" * 256, "two\nlines", "\x00", "\ud800", "tab\t"])
def test_problems_name_the_field(text: str) -> None:
    problem = check_key(text, "events.3.idempotency_key")
    assert problem is not None
    assert (problem.field, problem.code) == ("events.3.idempotency_key", "idempotency_key_invalid")
    assert "1 to 255 printable characters" in problem.message
