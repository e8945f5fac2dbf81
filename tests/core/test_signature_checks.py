"""The verdict of a signature check."""

from dataclasses import replace

import pytest

from uplift_server.core.deliveries.causes import SIGNED_WRONGLY
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.deliveries.signature_checks import Result, verdict


def result(status_code: int | None, error: str | None = None) -> Result:
    outcome = {
        None: Outcome.CONNECT_ERROR, 2: Outcome.DELIVERED, 3: Outcome.REDIRECT, 4: Outcome.CLIENT_ERROR,
        5: Outcome.SERVER_ERROR,
    }[None if status_code is None else status_code // 100]  # fmt: skip
    outcome = Outcome.THROTTLED if status_code == 429 else outcome
    return Result(outcome, status_code, error, None)


@pytest.mark.parametrize(
    ("wrong", "valid", "code"),
    [
        (401, 204, "verified"),
        (400, 200, "verified"),
        (404, 200, "verified"),
        (204, 204, "accepts_wrong"),
        (200, 500, "accepts_wrong"),
        (401, 401, "rejects_valid"),
        (400, 403, "rejects_valid"),
        (404, 404, "error"),
        (405, 405, "error"),
        (401, 500, "error"),
        (500, 204, "error"),
        (301, 204, "error"),
        (408, 204, "error"),
        (429, 204, "error"),
        (401, 429, "error"),
    ],
)
def test_the_verdict_follows_both_responses(wrong: int, valid: int, code: str) -> None:
    found = verdict(result(wrong, SIGNED_WRONGLY), result(valid))
    assert found.code == code
    assert (found.hint is None) == (code == "verified")


def test_the_reason_in_the_response_explains_a_rejected_signature() -> None:
    rejected = replace(result(401), response="The signature is 400 seconds old. [timestamp_too_old]")
    found = verdict(result(401, SIGNED_WRONGLY), rejected)
    assert found.code == "rejects_valid"
    assert "clock" in str(found.hint)


def test_a_missing_response_is_explained() -> None:
    found = verdict(result(None, "could not connect to 192.0.2.1:443: connection refused"), None)
    assert (found.code, "refused" in found.text) == ("error", True)


def test_an_unfinished_attempt_is_slow() -> None:
    assert verdict(None, None).code == "slow"
    assert verdict(result(401, SIGNED_WRONGLY), None).code == "slow"


@pytest.mark.parametrize("status_code", [204, 401])
def test_only_a_request_with_a_wrong_signature_is_a_proof(status_code: int) -> None:
    """A worker from an earlier release sends a valid signature even if told not to. Such a request proves nothing."""
    assert verdict(result(status_code), result(204)).code == "error"


def test_a_rejected_route_is_not_a_rejected_signature() -> None:
    assert "no route" in verdict(result(404, SIGNED_WRONGLY), result(404)).text
