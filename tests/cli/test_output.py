"""Terminal output: tables, colors, and no control characters from data."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from uplift_server.cli.demo.receiver import DOWN, SHAKY, STEADY, Arrival
from uplift_server.cli.demo.screen import Screen
from uplift_server.cli.demo.tally import Tally
from uplift_webhooks.cli.kit.output import Output, printable
from uplift_webhooks.cli.kit.tables import Column


def terminal(width: int = 100) -> tuple[Output, io.StringIO]:
    shown = io.StringIO()
    output = Output(as_json=False)
    output.results = output.notes = Console(
        file=shown, force_terminal=True, width=width, highlight=False, color_system="standard", _environ={}
    )
    return output, shown


def test_control_characters_are_removed() -> None:
    assert printable("a\x1b[2Jb\r\x07\u202ec") == "a?[2Jb???c"
    assert printable(None) == ""
    output, shown = terminal()
    output.rows([{"url": "https://x/\x1b[2J"}], [Column("url", "URL")], empty="")
    output.fields({"url": "[bold]\x1b[2J"})
    output.failure("\x1b[2J", "\x1b[2J", 1)
    assert "\x1b[2J" not in shown.getvalue()
    assert "[bold]?[2J" in shown.getvalue()


def plain(shown: io.StringIO) -> list[str]:
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", shown.getvalue()).splitlines()]


COLUMNS = [
    Column("id", "DELIVERY", "id"),
    Column("type", "TYPE", gives=True),
    Column("status", "STATUS"),
    Column("attempts", "TRIES", dropped=1),
    Column("created_at", "CREATED", "timestamp", dropped=2),
]
ITEM = {"id": "dlv_" + "0123456789abcdef" * 3, "type": "movement.analytics.created", "status": "failed", "attempts": 3,
        "created_at": "2020-01-01T00:00:00.000Z"}  # fmt: skip


def test_a_table_fits_its_width_with_one_line_per_item() -> None:
    output, shown = terminal(40)
    output.rows([ITEM], COLUMNS, empty="")
    assert plain(shown) == ["DELIVERY      TYPE                STATUS", "0123456789ab  movement.analytic…  failed"]
    assert "\x1b[31mfailed" in shown.getvalue()
    output, shown = terminal(80)
    output.rows([ITEM], COLUMNS, empty="")
    heading, line = plain(shown)
    assert heading.split() == ["DELIVERY", "TYPE", "STATUS", "TRIES", "CREATED"]
    assert "movement.analytics.created" in line
    assert line.endswith(" d ago")


def test_columns_that_can_be_truncated_share_the_width() -> None:
    output, shown = terminal(40)
    columns = [Column("name", "NAME", gives=True), Column("url", "URL", gives=True), Column("state", "STATE")]
    output.rows([{"name": "Rapids", "url": "u" * 50, "state": "on"}], columns, empty="")
    assert plain(shown)[1] == f"Rapids  {'u' * 24}…  on"
    output, shown = terminal(40)
    output.rows([{"name": "n" * 50, "url": "u" * 50, "state": "on"}], columns, empty="")
    assert plain(shown)[1] == f"{'n' * 14}…  {'u' * 15}…  on"


def test_a_wide_table_shows_all_values_in_one_line() -> None:
    output, shown = terminal(40)
    output.rows([ITEM], COLUMNS, empty="", wide=True)
    _, line = plain(shown)
    assert line.split() == [str(value) for value in ITEM.values()]


def test_an_object_is_a_block_without_empty_fields() -> None:
    output, shown = terminal()
    output.fields({"id": "ep_1", "headers": {}, "rate": None, "health": {"status": "failing", "hint": "Too slow."}})
    assert plain(shown) == ["id      ep_1", "health", "  status  failing", "  hint    Too slow."]


def test_no_color_writes_no_escape_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    output = Output(as_json=False)
    with output.results.capture() as captured:
        output.line(("bold", "bold"))
        output.rows([ITEM], COLUMNS, empty="")
    assert "\x1b" not in captured.get()


def test_only_the_status_field_has_the_color_of_a_status() -> None:
    output, shown = terminal()
    output.fields({"name": "failed", "status": "failed", "flag": True, "many": [1, 2], "inner": {"a": None}})
    assert shown.getvalue().count("\x1b[31m") == 1
    assert "yes" in shown.getvalue()
    assert "1, 2" in shown.getvalue()


ARRIVAL = Arrival(STEADY, 10.0, "e1", "athlete.created", 1, 204, None)


@pytest.mark.parametrize("events", [None, 1])
def test_the_demo_screen_on_a_terminal(events: int | None) -> None:
    output, shown = terminal(160)
    tally = Tally()
    with Screen(output, events) as screen:
        screen.links("http://127.0.0.1:1/owner/a", "http://127.0.0.1:1/operator/b")
        screen.say("begin")
        tally.handed_over("e1", 9.99)
        for arrival in (
            ARRIVAL,
            Arrival(SHAKY, 10.1, "e1", "t", 1, 302, None),
            Arrival(SHAKY, 10.2, "e2", "t", 1, 400, "bad"),
        ):
            tally.arrived(arrival)
            screen.arrival(arrival, tally.latency_ms(arrival))
            screen.delivered(1)
    screen.summary(tally.summary(unfinished=1, seconds=1))
    text = shown.getvalue()
    shown_words = (
        "accepted",
        "redirect to login",
        "rejected",
        "10.0 ms",
        "bad",
        "0 of 1 at the shaky receiver",
    )
    # On a terminal, the program prints the links again below each new line.
    assert text.count("http://127.0.0.1:1/owner/a") > 1
    assert text.count("http://127.0.0.1:1/operator/b") > 1
    assert all(words in text for words in (*shown_words, "invalid signatures: 1", "Unfinished deliveries: 1"))


def test_a_demo_without_a_terminal_has_no_progress_bar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Screen(Output(as_json=False), 1) as screen:
        screen.links("http://127.0.0.1:1/owner/a", "http://127.0.0.1:1/operator/b")
        screen.arrival(ARRIVAL, None)
        screen.delivered(1)
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert text.count("http://127.0.0.1:1/owner/a") == text.count("http://127.0.0.1:1/operator/b") == 1


def test_an_outage_in_the_demo_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen(Output(as_json=False), None) as screen:
        for status in (204, 503, 503, 503, 204, 204):
            screen.arrival(Arrival(DOWN, 10.0, "e1", "t", 1, status, None), None)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines] == ["204", "503", "204"]
