"""Codes of second factors: the test vectors of RFC 6238, clock skew, repeated codes, and recovery codes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.security import totp

SECRET = b"12345678901234567890"
NOW = 1_700_000_010_000
STEP = totp.step_at(NOW)


@pytest.mark.parametrize(
    ("seconds", "code"),
    [
        (59, "94287082"),
        (1111111109, "07081804"),
        (1111111111, "14050471"),
        (1234567890, "89005924"),
        (2000000000, "69279037"),
        (20000000000, "65353130"),
    ],
)
def test_codes_are_those_of_the_rfc(seconds: int, code: str) -> None:
    assert totp.code_at(SECRET, totp.step_at(seconds * 1000), 8) == code
    assert totp.code_at(SECRET, totp.step_at(seconds * 1000)) == code[2:]


@given(st.integers(-4, 4))
def test_clocks_may_differ_by_one_step(skew: int) -> None:
    found = totp.matching_step(SECRET, totp.code_at(SECRET, STEP + skew), NOW, after=0)
    assert found == (STEP + skew if abs(skew) <= totp.SKEW_STEPS_MAX else None)


@given(st.integers(-3, 3), st.integers(-1, 1))
def test_a_code_is_accepted_only_after_the_last_used_step(used: int, skew: int) -> None:
    found = totp.matching_step(SECRET, totp.code_at(SECRET, STEP + skew), NOW, after=STEP + used)
    assert found == (STEP + skew if skew > used else None)


@pytest.mark.parametrize("text", ["{0}{1}", " {0} {1} ", "{0}-{1}", "\t{0}\u00a0{1}"])
def test_spaces_and_hyphens_are_ignored(text: str) -> None:
    code = totp.code_at(SECRET, STEP)
    assert totp.matching_step(SECRET, text.format(code[:3], code[3:]), NOW, after=0) == STEP


@pytest.mark.parametrize("text", ["", "0", "12345", "\uff11" * 6, "\ud800", "x" * 1_000_000])
def test_other_texts_are_wrong(text: str) -> None:
    assert totp.matching_step(SECRET, text, NOW, after=0) is None


def test_the_uri_names_the_server_and_the_person() -> None:
    uri = totp.app_uri(SECRET, email="ann+x@example.com", issuer="Rapids & Co")
    assert uri == (
        "otpauth://totp/Rapids%20%26%20Co:ann%2Bx%40example.com"
        "?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Rapids%20%26%20Co"
    )


@given(st.binary(min_size=totp.RECOVERY_BYTES, max_size=totp.RECOVERY_BYTES))
def test_a_recovery_code_can_be_entered_in_any_form(random: bytes) -> None:
    code, person = totp.recovery_code(random), bytes(16)
    assert re.fullmatch(r"([a-z2-7]{4}-){3}[a-z2-7]{4}", code)
    digest = totp.recovery_digest(person, code)
    assert digest == totp.recovery_digest(person, f" {code.upper().replace('-', ' ')} ")
    assert digest != totp.recovery_digest(b"x" * 16, code)
    assert digest != totp.recovery_digest(person, code[:-1])
