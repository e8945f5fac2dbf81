"""Outcomes of exchanges."""

import pytest

from uplift_server.core.deliveries.outcomes import Outcome, classify, is_own_fault
from uplift_server.core.http.exchange import Exchange, Failure

CONTRACT_NAMES = (
    "delivered redirect client_error server_error throttled timeout "
    "dns_error connect_error tls_error protocol_error blocked"
)


def exchange(status_code: int | None = None, failure: Failure | None = None) -> Exchange:
    return Exchange(started_at=0, duration_us=1, status_code=status_code, failure=failure)


def test_only_200_to_299_is_success() -> None:
    successes = [code for code in range(700) if classify(exchange(code)) is Outcome.DELIVERED]

    assert successes == [*range(200, 300)]


@pytest.mark.parametrize(
    ("status_code", "outcome"),
    [
        (301, Outcome.REDIRECT),
        (304, Outcome.REDIRECT),
        (400, Outcome.CLIENT_ERROR),
        (410, Outcome.CLIENT_ERROR),
        (429, Outcome.THROTTLED),
        (499, Outcome.CLIENT_ERROR),
        (500, Outcome.SERVER_ERROR),
        (599, Outcome.SERVER_ERROR),
        (600, Outcome.PROTOCOL_ERROR),
        (101, Outcome.PROTOCOL_ERROR),
        (None, Outcome.PROTOCOL_ERROR),
    ],
)
def test_classes_of_status(status_code: int | None, outcome: Outcome) -> None:
    assert classify(exchange(status_code)) is outcome


@pytest.mark.parametrize("failure", list(Failure))
def test_a_failed_exchange_is_never_a_success(failure: Failure) -> None:
    outcome = classify(exchange(200, failure))

    assert outcome is not Outcome.DELIVERED
    assert classify(exchange(None, failure)) is outcome


def test_only_egress_and_blocked_failures_are_own_faults() -> None:
    ours = {failure for failure in Failure if is_own_fault(exchange(failure=failure))}

    assert ours == {Failure.EGRESS, Failure.BLOCKED}
    assert not is_own_fault(exchange(500))


def test_names_and_numbers_never_change() -> None:
    assert " ".join(outcome.text for outcome in Outcome) == CONTRACT_NAMES
    assert [int(outcome) for outcome in Outcome] == list(range(11))
