"""Signature checks, which test whether a receiver rejects a wrong signature and accepts a valid one."""

from dataclasses import dataclass, replace
from typing import Final, Literal

from uplift_server.core.deliveries.causes import BY_REASON, SIGNED_WRONGLY, explain
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.deliveries.responses import reason_in

VerdictCode = Literal["verified", "accepts_wrong", "rejects_valid", "error", "slow"]
_NOT_REJECTIONS: Final = frozenset({408, 429})
"""Client error codes that are unrelated to the signature: 408 (timeout) and 429 (too many requests)."""
_NO_ROUTE: Final = frozenset({404, 405, 410})
"""Status codes that mean that a receiver rejects a request's path, not its signature."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one attempt in a signature check."""

    outcome: Outcome
    status_code: int | None
    error: str | None
    location: str | None
    response: str | None = None
    """The first line of the response body, if any."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict of a signature check. `hint` says how to fix the problem."""

    code: VerdictCode
    text: str
    hint: str | None = None


_VERIFIED: Final = Verdict("verified", "Your server rejects wrong signatures and accepts valid ones.")
_ACCEPTS_WRONG: Final = Verdict(
    "accepts_wrong",
    "Your server accepted a request with a wrong signature.",
    "Verify the signature before you respond with 2xx.",
)
_REJECTS_VALID: Final = Verdict(
    "rejects_valid",
    "Your server rejected a valid signature.",
    "Use this endpoint's secret, and verify the body exactly as your server received it.",
)
_SLOW: Final = Verdict(
    "slow",
    "Your server did not respond within 1.9 seconds.",
    "Respond before you process the event, then check again.",
)
_SIGNED_CORRECTLY: Final = Verdict(
    "error",
    "The server is being upgraded, so it sent a valid signature instead of a wrong one.",
    "Try again in a minute.",
)


def verdict(wrong: Result | None, valid: Result | None) -> Verdict:
    """Return the verdict of a signature check.

    `wrong` is the result of the attempt with a wrong signature, and `valid` is the result of the attempt with a valid
    signature. Pass None for an attempt without a result.
    """
    if wrong is not None and not _rejected(wrong):
        return _ACCEPTS_WRONG if _accepted(wrong) and wrong.error == SIGNED_WRONGLY else _error(wrong)
    if wrong is None or valid is None:
        return _SLOW
    if _accepted(valid):
        return _VERIFIED if wrong.error == SIGNED_WRONGLY else _SIGNED_CORRECTLY
    if not _rejected(valid) or valid.status_code in _NO_ROUTE:
        return _error(valid)
    reason = reason_in(valid.response)
    return _REJECTS_VALID if reason is None else replace(_REJECTS_VALID, hint=BY_REASON[reason].hint)


def _accepted(result: Result) -> bool:
    return result.outcome is Outcome.DELIVERED


def _rejected(result: Result) -> bool:
    return result.outcome is Outcome.CLIENT_ERROR and result.status_code not in _NOT_REJECTIONS


def _error(result: Result) -> Verdict:
    if _accepted(result):
        return _SIGNED_CORRECTLY
    error = None if result.error == SIGNED_WRONGLY else result.error
    explanation = explain(
        result.outcome,
        status_code=result.status_code,
        error=error,
        location=result.location,
        response=result.response,
    )
    assert explanation is not None, "a failed attempt has an explanation"
    return Verdict("error", explanation.cause, explanation.remedy)
