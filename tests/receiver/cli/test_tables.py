"""Lists on a terminal: IDs are never truncated, at any width."""

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from uplift_webhooks.cli import deliveries, endpoints, events
from uplift_webhooks.cli.kit.tables import Column, draw

DELIVERY = {
    "id": "dlv_0197f0c200007000800000000001a2134f0000000001",
    "endpoint": "ep_0197f0c2000070008000000000000001",
    "type": "movement.analytics.created",
    "status": "pending",
    "attempts_made": 3,
    "last_outcome": "client_error",
    "next_attempt_at": "2026-01-01T00:00:00.000Z",
    "created_at": "2026-01-01T00:00:00.000Z",
    "waiting_for": "retry",
}
ENDPOINT = {
    "id": "ep_0197f0c2000070008000000000000001",
    "url": "https://webhooks.rapids-academy.example/uplift/receive?team=first",
    "state": "enabled",
    "health": "healthy",
    "event_types": "movement.*, athlete.created",
}
REASON = {
    "endpoint": "ep_0197f0c2000070008000000000000001",
    "reason": "type_not_wanted",
    "text": "The endpoint does not want events of this type.",
    "hint": "Add the type to the endpoint's event_types, if it shall get them.",
}


def table_lines(item: dict[str, Any], columns: list[Column], width: int) -> list[str]:
    """Return the lines of a table with two equal rows, for a terminal width."""
    row = {each.name: Text(str(item.get(each.name, ""))) for each in columns}
    table, needed = draw([row, row], columns, width)
    terminal = Console(file=io.StringIO(), width=max(width, needed), force_terminal=True, color_system=None)
    terminal.print(table)
    assert isinstance(terminal.file, io.StringIO)
    return [line.rstrip() for line in terminal.file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120, 160, 200])
@pytest.mark.parametrize(
    ("item", "columns"),
    [
        (DELIVERY, deliveries._COLUMNS),
        (ENDPOINT, endpoints._COLUMNS),
        (REASON, events._REASONS),
        ({**DELIVERY, "id": "0197f0c2-0000-7000-8000-000000000001"}, events._COLUMNS),
    ],
    ids=["deliveries", "endpoints", "reasons", "events"],
)
def test_ids_are_complete_and_lines_fit_the_width(item: dict[str, Any], columns: list[Column], width: int) -> None:
    heading, *lines = table_lines(item, columns, width)

    [first, *_] = columns
    assert sum(line.startswith(str(item[first.name])) for line in lines) == 2
    least = len(str(item[first.name])) + sum(2 + (each.least or 12) for each in columns[1:] if not each.dropped)
    assert max(map(len, [heading, *lines])) <= max(width, least)


def test_80_columns_show_the_important_columns() -> None:
    heading, first, _ = table_lines(DELIVERY, deliveries._COLUMNS, 80)
    assert heading.split() == ["DELIVERY", "STATUS", "LAST", "OUTCOME"]
    assert first.split() == [DELIVERY["id"], "pending", "client_error"]
    heading, first, _ = table_lines(ENDPOINT, endpoints._COLUMNS, 80)
    assert heading.split() == ["ENDPOINT", "URL", "STATE", "HEALTH"]
    assert "https://" in first
    # Long sentences wrap between words.
    reason_lines = table_lines(REASON, events._REASONS, 80)
    assert "WHY" not in reason_lines[0]
    assert {word for line in reason_lines for word in line.split()} >= set(REASON["hint"].split())


def test_a_wide_terminal_shows_everything() -> None:
    _, first, _ = table_lines(DELIVERY, deliveries._COLUMNS, 250)
    assert first.split() == [str(value) for value in DELIVERY.values()]


@pytest.mark.parametrize("width", [120, 160, 200])
def test_a_type_is_not_truncated_for_less_important_columns(width: int) -> None:
    waiting = {**DELIVERY, "waiting_for": "the next probe of its endpoint, whose circuit breaker is open"}
    _, first, _ = table_lines(waiting, deliveries._COLUMNS, width)
    assert {DELIVERY["type"], DELIVERY["status"], DELIVERY["last_outcome"]} <= {*first.split()}


texts = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60)


@given(st.lists(texts, min_size=4, max_size=4), st.integers(1, 150))
def test_columns_and_tables_have_a_maximum_width(values: list[str], width: int) -> None:
    columns = [
        Column("a", "A"),
        Column("b", "B", gives=True, dropped=1),
        Column("c", "C", folds=True),
        Column("d", "D", dropped=2),
    ]
    row = {each.name: Text(value) for each, value in zip(columns, values, strict=True)}

    table, needed = draw([row], columns, width)

    widths = {str(column.header): column.width for column in table.columns}
    assert widths["A"] == max(1, len(values[0]))
    assert needed <= max(width, widths["A"] + 2 + 20)
    assert all(
        (widths[each.heading] or 0) <= max(1, row[each.name].cell_len) for each in columns if each.heading in widths
    )
