"""Findings of the checks that `doctor` runs."""

from uplift_server.core.operations.findings import Finding


def test_a_passed_check_needs_no_fix() -> None:
    assert Finding("clock", "ok", "The clock agrees with the database's.").remedy == ""
