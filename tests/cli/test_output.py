"""What a terminal shows: tables, colours where they are wanted, and nothing that others wrote and that steers it."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from uplift_server.cli.demo.receiver import SHAKY, STEADY, Arrival
from uplift_server.cli.demo.screen import Screen
from uplift_server.cli.demo.tally import Tally
from uplift_server.cli.output import Output, printable


def terminal(width: int = 100) -> tuple[Output, io.StringIO]:
    shown = io.StringIO()
    output = Output(as_json=False)
    output.results = output.notes = Console(
        file=shown, force_terminal=True, width=width, highlight=False, color_system="standard", _environ={}
    )
    return output, shown


def test_control_characters_of_others_are_not_passed_on() -> None:
    assert printable("a\x1b[2Jb\r\x07\u202ec") == "a?[2Jb???c"
    assert printable(None) == ""
    output, shown = terminal()
    output.rows([{"url": "https://x/\x1b[2J"}], [("url", "URL")], empty="")
    output.fields({"url": "[bold]\x1b[2J"})
    output.failure("\x1b[2J", "\x1b[2J", 1)
    assert "\x1b[2J" not in shown.getvalue()
    assert "[bold]?[2J" in shown.getvalue()


def test_a_table_fits_its_width_and_keeps_ids_whole_over_lines() -> None:
    output, shown = terminal(40)
    identity = "dlv_" + "0123456789abcdef" * 3
    output.rows([{"id": identity, "status": "failed"}], [("id", "DELIVERY"), ("status", "STATUS")], empty="")
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.getvalue())
    assert max(map(len, text.splitlines())) <= 40
    assert identity in "".join(line[:32].strip() for line in text.splitlines())
    assert "\x1b[31mfailed" in shown.getvalue()


def test_a_status_in_another_column_is_no_status() -> None:
    output, shown = terminal()
    output.fields({"name": "failed", "status": "failed", "flag": True, "many": [1, 2], "inner": {"a": None}})
    assert shown.getvalue().count("\x1b[31m") == 1
    assert "yes" in shown.getvalue()
    assert "1, 2" in shown.getvalue()


ARRIVAL = Arrival(STEADY, 10.0, "e1", "athlete.created", 1, 204, None)


@pytest.mark.parametrize("events", [None, 1])
def test_the_stream_of_a_terminal(events: int | None) -> None:
    output, shown = terminal(160)
    tally = Tally()
    with Screen(output, events) as screen:
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
    shown_words = ("accepted", "sent to a login page", "refused", "10.0 ms", "bad", "0 of 1 at the shaky one")
    assert all(words in text for words in (*shown_words, "1 requests that did not verify", "1 deliveries that"))


def test_a_demonstration_without_a_terminal_has_no_progress_bar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Screen(Output(as_json=False), 1) as screen:
        screen.arrival(ARRIVAL, None)
        screen.delivered(1)
    assert "\x1b" not in capsys.readouterr().out
