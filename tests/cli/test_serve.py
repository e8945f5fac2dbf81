"""The serve command, and commands with and without a running server."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests import programs

PROGRAM = str(Path(sys.executable).with_name("uplift-server"))


@pytest.fixture
def place(tmp_path: Path, unused_tcp_port: int) -> tuple[Path, dict[str, str]]:
    return tmp_path, {**os.environ, "UPLIFT_PORT": str(unused_tcp_port)}


Place = tuple[Path, dict[str, str]]


def run(place: Place, *arguments: str) -> subprocess.CompletedProcess[str]:
    directory, environ = place
    return programs.run([PROGRAM, *arguments], directory=directory, environ=environ)


def output(place: Place, *arguments: str) -> Any:
    result = run(place, *arguments, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@contextmanager
def serving(place: Place, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a server; yield its process and its ready line."""
    directory, environ = place
    process = subprocess.Popen(
        [PROGRAM, "serve", *arguments],
        cwd=directory,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline()
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_the_first_start_prints_a_key_once_and_commands_use_it(place: Place) -> None:
    with serving(place, "--json") as (process, line):
        ready = json.loads(line)
        assert ready["kind"] == "ready"
        assert ready["url"] == f"http://127.0.0.1:{place[1]['UPLIFT_PORT']}"
        assert ready["operator_key"].startswith("op_")
        created = output(place, "accounts", "create", "Rapids", "--email", "a@b.example")
        assert output(place, "accounts")["id"] == created["id"]
        key = output(place, "keys", "create", "--account", "Rapids")["key"]
        assert key.startswith("sk_")
        assert run(place, "endpoints", "ep_nothing").returncode == 4
        assert '"check": "server", "result": "ok"' in run(place, "doctor", "--json").stdout
        second = run((place[0], place[1] | {"UPLIFT_PORT": "0"}), "serve")
        assert second.returncode == 75
        assert second.stderr.startswith("Error: another server (process ")
        process.terminate()
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "Traceback" not in errors
    with serving(place, "--json") as (_, line):
        assert json.loads(line)["operator_key"] is None
        assert output(place, "accounts")["name"] == "Rapids"


def test_a_port_in_use_is_reported_before_the_database_exists(place: Place) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(place[1]["UPLIFT_PORT"])))
        taken.listen()
        result = run(place, "serve")
    assert result.returncode == 75
    assert "but the server cannot listen on this address" in result.stderr
    # The server takes the lock first, so that a second server with the same data reports the lock and not the port.
    assert [path.name for path in place[0].rglob("*") if path.is_file()] == ["uplift.db.lock"]


def test_systemd_is_notified_when_the_server_is_ready(place: Place, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.setblocking(False)
        directory, environ = place
        place = (directory, {**environ, "NOTIFY_SOCKET": str(tmp_path / "notify")})
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", int(environ["UPLIFT_PORT"])))
            taken.listen()
            assert run(place, "serve").returncode == 75
        with pytest.raises(BlockingIOError):
            notified.recv(100)
        notified.settimeout(20)
        with serving(place):
            assert notified.recv(100) == b"READY=1"


@pytest.mark.parametrize("role", ["api", "worker"])
def test_a_single_role_is_rejected_on_sqlite(place: Place, role: str) -> None:
    result = run(place, "serve", "--role", role)
    assert result.returncode == 2
    assert f"--role is {role}, which needs a PostgreSQL database" in result.stderr
    assert "set UPLIFT_DATABASE_URL to a PostgreSQL database" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(place[0].iterdir()) == []


@pytest.fixture
def handled_hangup() -> Iterator[None]:
    """Handle SIGHUP in this process, so that its children do not ignore it if the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, lambda *_: None)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.timing
@pytest.mark.usefixtures("handled_hangup")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_the_ready_line_shows_the_url_and_a_signal_stops_the_server(place: Place, number: signal.Signals) -> None:
    with serving(place) as (process, line):
        assert line.startswith("Uplift Webhooks ")
        assert line.endswith(f" ready at http://127.0.0.1:{place[1]['UPLIFT_PORT']}\n")
        assert process.stdout is not None
        # A log of this output contains no key.
        assert process.stdout.readline() == "Operator key stored in uplift-data/operator.key\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "Stopping:" in errors
        assert "Stopped." in errors


def test_only_a_terminal_shows_the_operator_key(place: Place) -> None:
    directory, environ = place
    ours, terminal = pty.openpty()
    with os.fdopen(ours, encoding="utf-8") as shown:
        process = subprocess.Popen([PROGRAM, "serve"], cwd=directory, env=environ, stdout=terminal, stderr=terminal)
        os.close(terminal)
        try:
            lines = [shown.readline() for _ in range(2)]
        finally:
            process.terminate()
            process.wait(60)
    key = (directory / "uplift-data/operator.key").read_text().strip()
    assert key in "".join(lines)


def test_a_second_signal_does_not_wait_for_attempts_in_flight(place: Place) -> None:
    directory, environ = place
    allowed = (directory, environ | {"UPLIFT_ALLOW_PRIVATE_NETWORKS": "true"})
    with socket.socket() as silent, serving(allowed) as (process, _):
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        output(allowed, "accounts", "create", "Rapids", "--email", "a@b.example")
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        output(allowed, "endpoints", "create", url, "--account", "Rapids")
        # The registration event is in flight and gets no response.
        silent.settimeout(20)
        connection, _ = silent.accept()
        with connection:
            process.send_signal(signal.SIGTERM)
            assert process.stderr is not None
            assert any("Stopping:" in line for line in process.stderr)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 130
            assert time.monotonic() - began < 5


def test_a_file_of_events_is_sent_once_even_if_the_command_is_repeated(place: Place) -> None:
    account = output(place, "accounts", "create", "Rapids", "--email", "a@b.example")["id"]
    good = [
        {"type": "athlete.created", "data": {"object": {"id": f"a{number}", "first_name": "Ana"}}}
        for number in range(700)
    ]
    good[5] |= {"account": account, "idempotency_key": "own key"}
    lines = [json.dumps(event) for event in good]
    lines[3:3] = ["", json.dumps({"type": "athlete.creatd", "data": {}})]
    (place[0] / "events.jsonl").write_text("\n".join(lines))
    send = ("events", "send", "--file", "events.jsonl", "--account", "Rapids")

    first = run(place, *send, "--json")
    counts = json.loads(first.stdout)
    [rejection] = counts.pop("rejections")
    assert counts == {"accepted": 700, "duplicates": 0, "rejected": 1}
    assert (rejection["line"], "athlete.creatd does not exist" in rejection["error"]) == (5, True)
    assert first.returncode == 1
    again = run(place, *send)
    assert "line 5 of events.jsonl: " in again.stderr
    assert "does not exist" in again.stderr
    assert "the server did not accept 1 of the events" in again.stderr
    assert dict(line.split() for line in again.stdout.splitlines())["duplicates"] == "700"


def test_a_command_works_without_a_server(place: Place) -> None:
    created = output(place, "accounts", "create", "Rapids", "--email", "a@b.example")
    assert output(place, "accounts")["id"] == created["id"]
    sent = output(place, "events", "send", "athlete.created", "--account", "Rapids")
    assert (sent["duplicate"], sent["deliveries"]) == (False, 0)
    assert (
        "no endpoint of the account matches it"
        in run(place, "events", "send", "athlete.created", "--account", "Rapids").stderr
    )
    output(place, "endpoints", "create", "https://203.0.114.1/", "--account", "Rapids")
    sent = run(place, "events", "send", "athlete.created", "--account", "Rapids")
    assert "The event is stored. To process the request, start the server" in sent.stderr
    rejected = run(place, "endpoints", "create", "http://10.0.0.1/", "--account", "Rapids")
    assert rejected.returncode == 2
    assert rejected.stderr.startswith("Error: the URL: ")
    assert rejected.stdout == ""
    doctor = run(place, "doctor", "--json")
    assert {row["check"] for row in map(json.loads, doctor.stdout.splitlines()) if row["result"] == "fail"} == set()


def test_doctor_finds_a_server_with_another_database(
    tmp_path: Path, unused_tcp_port_factory: Callable[[], int]
) -> None:
    places = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        places.append((tmp_path / name, {**os.environ, "UPLIFT_PORT": str(unused_tcp_port_factory())}))
    one, two = places
    with serving(one), serving(two):
        mixed = (one[0], two[1])
        for target, result in ((one, "ok"), (mixed, "fail")):
            lines = map(json.loads, run(target, "doctor", "--json").stdout.splitlines())
            [server] = [line for line in lines if line["check"] == "server"]
            assert server["result"] == result
        assert "a different database" in server["text"]


@pytest.fixture
def database(place: Place) -> Path:
    """The database file of a stopped server."""
    result = run(place, "accounts", "create", "Rapids", "--email", "a@b.example")
    assert result.returncode == 0, result.stderr
    return place[0] / "uplift-data/uplift.db"


@pytest.mark.parametrize("lost", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_doctor_finds_a_lost_database(place: Place, database: Path, lost: Callable[[Path], object]) -> None:
    """The doctor reports the same fix as `serve`."""
    lost(database)
    rescued = database.with_name("uplift.db.rescued-20261129T000000Z")
    for remedy in ("--new-database", "the newest saved file to"):
        result = run(place, "doctor", "--json")
        [found] = [row for row in map(json.loads, result.stdout.splitlines()) if row["check"] == "database"]
        assert (result.returncode, found["result"]) == (1, "fail")
        for text in (found["remedy"], run(place, "serve").stderr):
            assert remedy in " ".join(text.split())
        # An interrupted rescue leaves the first two files, whose content is not complete.
        for name in (f"{rescued.name}.partial", f"{rescued.name}.partial-journal", rescued.name):
            rescued.with_name(name).touch()


@pytest.mark.parametrize("first_byte", [0, 100, 4096], ids=["header", "schema", "tables"])
def test_a_damaged_database_ends_the_server_with_1(place: Place, database: Path, first_byte: int) -> None:
    content = bytearray(database.read_bytes())
    content[first_byte : first_byte + 40_000] = os.urandom(len(content[first_byte : first_byte + 40_000]))
    database.write_bytes(content)

    ended = run(place, "serve")

    assert ended.returncode == 1
    assert "damaged" in ended.stderr


@pytest.mark.parametrize("what", ["file", "directory"])
def test_an_unwritable_directory_ends_the_server_with_2(place: Place, database: Path, what: str) -> None:
    read_only = database if what == "file" else database.parent
    read_only.chmod(0o444 if what == "file" else 0o555)
    # Root can write everything unless it drops that capability.
    drop_capabilities = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"] if os.geteuid() == 0 else []

    ended = subprocess.run(
        [*drop_capabilities, PROGRAM, "serve"],
        cwd=place[0],
        env=place[1],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    read_only.chmod(0o755)
    assert ended.returncode == 2, ended.stderr
    assert "is not writable" in ended.stderr


def serve_changed(place: Place, change: str) -> subprocess.CompletedProcess[str]:
    """Change the program with Python code, and run `serve` until it ends."""
    directory, environ = place
    program = f"{change}from uplift_server.cli.main import run\nrun()"
    return subprocess.run(
        [sys.executable, "-c", program, "serve"],
        cwd=directory, env=environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_a_check_during_the_stop_does_not_report_a_lost_database(place: Place) -> None:
    """SQLite deletes its log when the server closes the database."""
    program = (
        "import asyncio\n"
        "from uplift_server.app import Application\n"
        "from uplift_server.store.sqlite import SqliteDatabase\n"
        "change, close, checks = SqliteDatabase.change, SqliteDatabase.close, []\n"
        "async def change_after_close(database):\n"
        "    checks.append(asyncio.Event())\n"
        "    if len(checks) == 1: await checks[0].wait()\n"
        "    return await change(database)\n"
        "async def close_and_wait(database):\n"
        "    await close(database)\n"
        "    checks[0].set()\n"
        "    await asyncio.sleep(0.5)\n"
        "SqliteDatabase.change, SqliteDatabase.close = change_after_close, close_and_wait\n"
        "async def wait_for_a_check(application):\n"
        "    while not checks: await asyncio.sleep(0.01)\n"
        "Application.wait_stopped = wait_for_a_check\n"
    )
    ended = serve_changed(place, program)
    assert "lost" not in ended.stderr
    assert ended.returncode == 0


def test_an_internal_error_ends_the_server_with_1(place: Place) -> None:
    program = (
        "from uplift_server.app import Application\n"
        "async def broken(application): application.failed = True\n"
        "Application.wait_stopped = broken\n"
    )
    ended = serve_changed(place, program)
    assert ended.returncode == 1
    assert "Error: an internal error stopped the server\nHow to fix: " in ended.stderr
    assert "Stopped." not in ended.stderr
