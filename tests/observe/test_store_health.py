"""The health of a database: how long a failed read counts as a problem."""

import pytest

from uplift_server.observe import store_health
from uplift_server.observe.store_health import READ_FAILED_S, StoreHealth, Trouble

SILENT = Trouble("the database does not respond", "Check it.", is_unreachable=True)
DAMAGED = Trouble("the data is damaged", "Restore a backup.")


@pytest.mark.parametrize("name", ["rare", "frequent"])
def test_any_successful_read_shows_that_the_database_is_reachable(name: str) -> None:
    health = StoreHealth()
    health.note_failed_read("rare", SILENT, OSError())
    assert health.trouble() == "Database reads are failing: the database does not respond. Check it."

    health.note_read(name)

    assert health.trouble() is None


def test_other_failures_end_with_the_same_read_or_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    health = StoreHealth()
    health.note_failed_read("rare", DAMAGED, OSError())
    health.note_read("frequent")
    assert health.trouble() is not None
    health.note_read("rare")
    assert health.trouble() is None

    health.note_failed_read("rare", DAMAGED, OSError())
    now = store_health.time.monotonic()
    monkeypatch.setattr(store_health.time, "monotonic", lambda: now + READ_FAILED_S)
    assert health.trouble() is None


def test_a_failed_read_without_a_known_cause_is_no_trouble() -> None:
    health = StoreHealth()
    health.note_failed_read("rare", None, OSError())
    assert health.trouble() is None
