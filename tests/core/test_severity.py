"""The severity of failing endpoints, and of several problems together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.operations.severity import Severity, of_endpoints, worst


@pytest.mark.parametrize(
    ("broken", "delivering", "severity"),
    [
        (0, 0, Severity.OK),
        (0, 500, Severity.OK),
        (1, 1, Severity.CRITICAL),
        (1, 2, Severity.CRITICAL),
        (1, 3, Severity.ATTENTION),
        (1, 20, Severity.ATTENTION),
        (9, 20, Severity.ATTENTION),
        (10, 20, Severity.CRITICAL),
        (10, 100, Severity.CRITICAL),
        (10, 101, Severity.ATTENTION),
        (39, 202, Severity.CRITICAL),
        (179, 202, Severity.CRITICAL),
        (10, 1000, Severity.ATTENTION),
    ],
)
def test_many_failing_endpoints_are_critical(broken: int, delivering: int, severity: Severity) -> None:
    assert of_endpoints(broken, delivering) is severity


@given(st.integers(1, 10**6), st.integers(0, 10**6))
def test_a_failing_endpoint_is_never_ok(broken: int, others: int) -> None:
    assert of_endpoints(broken, broken + others) is not Severity.OK


@given(st.integers(1, 10**4), st.integers(0, 10**4))
def test_another_failing_endpoint_does_not_reduce_the_severity(broken: int, healthy: int) -> None:
    order = list(Severity)
    before, after = of_endpoints(broken, broken + healthy), of_endpoints(broken + 1, broken + 1 + healthy)
    assert order.index(after) >= order.index(before)


def test_the_worst_severity_counts() -> None:
    assert worst([]) is Severity.OK
    assert worst([Severity.ATTENTION, Severity.OK]) is Severity.ATTENTION
    assert worst([Severity.ATTENTION, Severity.CRITICAL, Severity.OK]) is Severity.CRITICAL
