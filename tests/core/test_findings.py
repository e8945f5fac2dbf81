"""The finding of a check."""

from uplift_server.core.operations.findings import Finding


def test_a_finding_without_a_problem_needs_no_remedy() -> None:
    assert Finding("clock", "ok", "The clock agrees with the database's.").remedy == ""
