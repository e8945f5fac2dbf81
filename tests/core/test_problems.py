"""Problems with the same fields are equal."""

from uplift_server.core.problems import Problem


def test_equal_problems_are_equal() -> None:
    assert Problem("url", "url_host", "No host.") == Problem("url", "url_host", "No host.")
    assert len({Problem("url", "url_host", "No host."), Problem("url", "url_host", "No host.")}) == 1
