"""Conventions of the program: help with examples, two-line errors, exit codes, JSON, and no tracebacks."""

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.cli.commands import check_closed_pipe
from typer.testing import CliRunner, Result

from uplift_server import __version__
from uplift_server.cli import setup
from uplift_server.cli.listening import cannot_listen
from uplift_server.cli.main import app
from uplift_server.config import load
from uplift_server.store.encryption import WrongSecretKey
from uplift_server.store.errors import Conflict, Unavailable
from uplift_server.store.schema_version import UnknownSchema


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env=environ)


def run_serve(**environ: str) -> tuple[int, str]:
    """Run `serve` as a process, because it writes to the streams of its process; return exit code and errors."""
    program = Path(sys.executable).with_name("uplift-server")
    result = subprocess.run(
        [program, "serve"], env={**os.environ, **environ}, capture_output=True, text=True, timeout=60, check=False
    )
    return result.returncode, result.stderr


def leaves(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    inner = getattr(group, "commands", None)
    if inner is None:
        yield path, group
        return
    for name, each in inner.items():
        if not each.hidden:
            yield from leaves(each, (*path, name))


COMMANDS = dict(leaves(typer.main.get_command(app)))


def test_the_list_of_commands() -> None:
    assert {
        ("serve",), ("demo",), ("migrate",), ("doctor",), ("config",), ("accounts", "create"), ("keys", "create"),
        ("events", "send"), ("endpoints", "list"), ("deliveries", "list"), ("replays", "create"),
    } <= set(COMMANDS)  # fmt: skip


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help_examples_and_the_shared_options(path: tuple[str, ...]) -> None:
    result = run(*path, "--help")
    assert result.exit_code == 0
    for text in ("Examples:", f"uplift-server {' '.join(path)}", "--json", "--config", "--debug"):
        assert text in result.stdout


def test_version_and_wrong_usage() -> None:
    assert run("--version").stdout == f"uplift-server {__version__}\n"
    assert run("nonsense").exit_code == 2
    assert run("accounts", "create").exit_code == 2
    assert run("deliveries", "--limit", "0").exit_code == 2


def test_an_error_has_a_line_for_the_cause_and_one_for_the_fix() -> None:
    result = run("config", UPLIFT_PROT="1")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == (
        "Error: UPLIFT_PROT is not a setting of this version\n"
        "How to fix: did you mean UPLIFT_PORT? Correct or remove the setting\n"
    )


def test_an_unknown_name_without_a_near_match_has_no_suggestion() -> None:
    assert run("config", UPLIFT_FOO="1").stderr.endswith(
        "How to fix: remove the setting; `uplift-server config` lists all settings\n"
    )


@pytest.mark.parametrize(
    ("arguments", "cause", "place"),
    [
        (["deliveries", "--limit", "0"], "Invalid value for '--limit': ", "uplift-server deliveries list"),
        (["accounts", "create", "--nonsense"], "No such option: --nonsense", "uplift-server accounts create"),
        (["keys", "show"], "No such command 'show'", "uplift-server keys"),
        (["accounts", "updat", "x"], "No such command 'updat'. Did you mean 'update'?", "uplift-server accounts"),
        (["accounts", "add", "x"], "No such command 'add'. Use one of: list, show, create,", "uplift-server accounts"),
        (["accounts", "Rapids", "Academy"], "Got unexpected extra argument", "uplift-server accounts show"),
        (["endpoints", "rotate-secret", "ep_1"], "No such command 'rotate-secret'. ", "uplift-server endpoints"),
        (["deliveries", "retry", "dlv_1"], "No such command 'retry'. Use one of: ", "uplift-server deliveries"),
        (["events", "explain"], "Missing argument", "uplift-server events explain"),
    ],
)
def test_wrong_usage_can_be_json(arguments: list[str], cause: str, place: str) -> None:
    result = run(*arguments, "--json")
    [line] = result.stderr.splitlines()
    error = json.loads(line)["error"]
    assert (result.exit_code, result.stdout, error["exit_code"]) == (2, "", 2)
    assert error["cause"].startswith(cause)
    assert error["remedy"] == f"see `{place} --help`"
    assert run(*arguments).stderr.startswith("Usage: ")


def test_help_shows_exit_codes_and_no_unknown_command() -> None:
    assert "130 stopped by" in " ".join(run("--help").stdout.split())
    assert "show" not in run("keys", "--help").stdout


def test_errors_are_json_with_the_json_option() -> None:
    result = run("config", "--json", UPLIFT_PORT="x", UPLIFT_LEASE="x")
    errors = [json.loads(line)["error"] for line in result.stderr.splitlines()]
    assert [error["exit_code"] for error in errors] == [2, 2]
    assert errors[0]["cause"].startswith("UPLIFT_PORT ")


def unavailable(cause: Exception) -> Unavailable:
    error = Unavailable(f"the database cannot do this now: {cause}")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (Unavailable("another server has it; stop it"), 75, "How to fix: stop it"),
        (Unavailable("disk full"), 75, "How to fix: try again in a moment"),
        (unavailable(OSError(errno.ENOSPC, "full")), 75, "How to fix: try again in a moment"),
        (unavailable(PermissionError(errno.EACCES, "denied", "uplift.db")), 2, "UPLIFT_DATABASE_URL"),
        (unavailable(OSError(errno.EROFS, "read-only", "uplift.db")), 2, "UPLIFT_DATABASE_URL"),
        # asyncio raises this error if PostgreSQL is stopped, because its socket does not exist.
        (unavailable(FileNotFoundError(errno.ENOENT, "no such file")), 75, "How to fix: try again in a moment"),
        (UnknownSchema("it is newer; start a later version"), 1, "How to fix: start a later version"),
        (Conflict("a name is taken"), 1, "Error: a name is taken"),
        (WrongSecretKey("it does not open; use the right one"), 2, "How to fix: use the right one"),
        (RuntimeError("bug"), 1, "Error: internal error: RuntimeError: bug"),
        (KeyboardInterrupt(), 130, "Stopped."),
    ],
)
def test_the_error_decides_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, words: str
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(setup, "describe", fail)
    result = run("config")
    assert result.exit_code == code
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_only_debug_shows_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "describe", lambda _: 1 / 0)
    assert "Traceback" not in run("config").stderr
    result = run("config", "--debug")
    assert "Traceback" in result.stderr
    assert "How to fix: " in result.stderr


def test_settings_come_from_the_given_or_the_default_file(tmp_path: Path) -> None:
    (tmp_path / "uplift.toml").write_text("port = 9001")
    (tmp_path / "other.toml").write_text("port = 9002")

    def port(*arguments: str) -> tuple[str, str]:
        rows = [json.loads(line) for line in run("config", "--json", *arguments).stdout.splitlines()]
        [found] = [row for row in rows if row["name"] == "UPLIFT_PORT"]
        return found["value"], Path(found["source"]).name

    assert port() == ("9001", "uplift.toml")
    assert port("--config", "other.toml") == ("9002", "other.toml")


def test_a_list_in_a_pipe_is_separated_by_tabs() -> None:
    lines = run("config").stdout.splitlines()
    assert lines[0] == "NAME\tVALUE\tSOURCE"
    assert "UPLIFT_PORT\t8420\tdefault" in lines


@pytest.mark.parametrize("arguments", [["config"], ["config", "--json"]])
def test_a_closed_pipe_exits_with_0(arguments: list[str]) -> None:
    check_closed_pipe(*arguments)


def program(*arguments: str, **streams: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from uplift_server.cli.main import run; run()", *arguments]
    return subprocess.run(command, text=True, timeout=60, check=False, **streams)


@pytest.mark.parametrize(
    "arguments", [["config"], ["config", "--json"], ["keys", "create"], ["keys", "create", "--json"]]
)
def test_a_full_disk_is_a_normal_error(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        result = program(*arguments, stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 1
    assert "cannot write the output: No space left on device" in result.stderr
    assert len(result.stderr.splitlines()) == (1 if "--json" in arguments else 2)


@pytest.mark.parametrize("arguments", [["keys", "create"], ["keys", "create", "--json"]])
def test_a_result_into_a_closed_pipe_is_an_error(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    result = program(*arguments, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert result.returncode == 1
    assert "cannot write the output: Broken pipe" in result.stderr
    assert len(result.stderr.splitlines()) == (1 if "--json" in arguments else 2)


def test_a_command_needs_a_standard_output() -> None:
    code = "from uplift_server.cli.main import run; run()"
    line = f"exec '{sys.executable}' -c '{code}' account create X --email a@b.example >&-"
    result = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("Error: standard output is closed\n")
    assert list(Path.cwd().iterdir()) == []


def damage_database(tmp_path: Path) -> None:
    assert run("migrate").exit_code == 0
    for path in (tmp_path / "uplift-data").glob("uplift.db-*"):
        path.unlink()
    (tmp_path / "uplift-data" / "uplift.db").write_bytes(b"no database at all" * 1000)


def exit_code_and_errors(command: str, **environ: str) -> tuple[int, str]:
    """Return the exit code and the errors of a command."""
    if command == "serve":
        return run_serve(**environ)
    result = run(command, **environ)
    return result.exit_code, result.stderr


@pytest.mark.parametrize("command", ["accounts", "migrate", "serve"])
def test_a_damaged_database_is_a_permanent_error(tmp_path: Path, command: str) -> None:
    damage_database(tmp_path)
    code, errors = exit_code_and_errors(command, UPLIFT_PORT="0")
    assert code == 1
    assert "is damaged or is not a database" in errors
    assert "How to fix: restore the database from a backup; for details, run `uplift-server doctor`" in errors


@pytest.mark.parametrize("command", ["migrate", "serve"])
def test_an_unwritable_directory_is_wrong_usage(tmp_path: Path, command: str) -> None:
    (tmp_path / "uplift-data").write_text("no directory")
    code, errors = exit_code_and_errors(command, UPLIFT_PORT="0")
    assert code == 2
    assert "UPLIFT_DATABASE_URL" in errors


def test_an_address_of_another_machine_differs_from_a_port_in_use() -> None:
    code, errors = run_serve(UPLIFT_HOST="192.0.2.1", UPLIFT_PORT="0")
    examined = run("doctor", UPLIFT_HOST="192.0.2.1", UPLIFT_PORT="0")
    assert (code, examined.exit_code) == (75, 1)
    for text in (errors, examined.output):
        assert "UPLIFT_HOST is 192.0.2.1, which is not an address of this machine" in " ".join(text.split())
    assert "set UPLIFT_HOST to an address of this machine, such as 127.0.0.1" in errors


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (OSError(errno.EADDRINUSE, "in use"), "UPLIFT_HOST and UPLIFT_PORT"),
        (OSError(errno.EACCES, "denied"), "UPLIFT_PORT"),
        (socket.gaierror(-2, "unknown"), "UPLIFT_HOST"),
    ],
)
def test_a_listen_error_names_the_setting(error: OSError, name: str) -> None:
    assert cannot_listen(load({"UPLIFT_PORT": "80"}), error).name == name
    assert not isinstance(error, socket.gaierror) or "not an address of this machine" in str(
        cannot_listen(load({}), error)
    )


def test_migrate_creates_the_database_and_its_key_and_can_be_repeated(tmp_path: Path) -> None:
    first = json.loads(run("migrate", "--json").stdout)
    assert (first["before"], first["copy"]) == ("none", "none needed")
    second = json.loads(run("migrate", "--json").stdout)
    assert second["before"] == second["now"] == first["now"]
    assert {path.name for path in (tmp_path / "uplift-data").iterdir()} >= {"uplift.db", "secret.key"}


@pytest.mark.parametrize(("shell", "expected"), [("bash", "COMPREPLY"), ("zsh", "compdef"), ("fish", "complete ")])
def test_show_completion_prints_the_script_of_a_shell(shell: str, expected: str) -> None:
    result = run("--show-completion", shell)
    assert (result.exit_code, expected in result.stdout) == (0, True)
    assert "_UPLIFT_SERVER_COMPLETE" in result.stdout


@pytest.mark.parametrize("path", [[], ["endpoints"], ["endpoints", "secret"], ["config"], ["demo"]], ids=" ".join)
def test_flags_have_no_type(path: list[str]) -> None:
    assert "bool" not in run(*path, "--help").stdout
