"""Conventions of `uplift`: help with examples, two-line errors, exit codes, JSON, and no tracebacks."""

import builtins
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.cli.fake_api import fake_api
from typer.testing import CliRunner, Result

from uplift_webhooks import __version__, cli
from uplift_webhooks.cli import ips
from uplift_webhooks.cli.main import app
from uplift_webhooks.testing import sign

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SERVERLESS = {("verify",), ("sign",)}


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("UPLIFT_API_URL", "UPLIFT_API_KEY", "UPLIFT_PROFILE", "UPLIFT_WEBHOOK_SECRET"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env=environ)


def leaves(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    inner = getattr(group, "commands", None)
    if inner is None:
        yield path, group
        return
    for name, each in inner.items():
        yield from leaves(each, (*path, name))


COMMANDS = dict(leaves(typer.main.get_command(app)))


def test_the_list_of_commands() -> None:
    assert {path[0] for path in COMMANDS} == {
        "listen", "trigger", "verify", "sign", "events", "reconcile", "deliveries", "attempts", "replays", "stats",
        "endpoints", "event-types", "ips", "rejected-events",
    }  # fmt: skip


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help_examples_and_the_shared_options(path: tuple[str, ...]) -> None:
    result = run(*path, "--help")
    assert result.exit_code == 0
    server = () if path in SERVERLESS else ("--api-url", "--api-key", "--profile")
    for text in ("Examples:", f"uplift {path[0]}", "--json", "--debug", *server):
        assert text in result.stdout


def test_version_and_wrong_usage() -> None:
    assert run("--version").stdout == f"uplift {__version__}\n"
    for wrong in (["nonsense"], ["verify"], ["deliveries", "--limit", "0"], ["events", "--nonsense"]):
        assert run(*wrong).exit_code == 2
        [line] = run(*wrong, "--json").stderr.splitlines()
        assert json.loads(line)["error"]["exit_code"] == 2


def test_an_error_has_a_line_for_the_cause_and_one_for_the_fix() -> None:
    result = run("events", UPLIFT_API_KEY="sk_1")
    assert (result.exit_code, result.stdout) == (2, "")
    cause, remedy = result.stderr.splitlines()
    assert cause == "Error: the server's URL is not set"
    assert remedy.startswith("How to fix: set UPLIFT_API_URL to the server's URL, use --api-url, or add a profile to ")
    error = json.loads(run("events", "--json", UPLIFT_API_KEY="sk_1").stderr)["error"]
    assert (error["cause"], error["exit_code"]) == ("the server's URL is not set", 2)
    assert run("events", UPLIFT_API_URL="http://127.0.0.1:9", UPLIFT_API_KEY="").exit_code == 3
    assert run("events", UPLIFT_API_URL="nonsense", UPLIFT_API_KEY="sk_1").exit_code == 2
    assert run("ips", UPLIFT_API_URL="http://127.0.0.1:9").exit_code == 75


def test_only_debug_shows_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("oh")

    monkeypatch.setattr(ips.Session, "calls", broken)
    result = run("ips")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "Error: internal error: RuntimeError: oh",
        "How to fix: repeat the command with --debug, and report the traceback",
    ]
    assert "Traceback" in run("ips", "--debug").stderr


def test_missing_packages_show_the_install_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original_import = builtins.__import__

    def missing(name: str, *others: Any) -> Any:
        if name == "uplift_webhooks.cli.main":
            raise ModuleNotFoundError("No module named 'typer'", name="typer")
        return original_import(name, *others)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(SystemExit) as caught:
        cli.run()
    assert caught.value.code == 1
    assert "'uplift-webhooks[cli]'" in capsys.readouterr().err


def test_sign_and_verify_agree(tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_bytes(b'{"id": "e1"}\n')
    signed = run("sign", "body.json", UPLIFT_WEBHOOK_SECRET=SECRET)
    assert signed.exit_code == 0
    assert "webhook-id: e1\n" in signed.stdout
    (tmp_path / "headers.txt").write_text(signed.stdout)
    verified = run("verify", "body.json", "--headers", "headers.txt", UPLIFT_WEBHOOK_SECRET=SECRET)
    assert (verified.exit_code, verified.stdout) == (0, "Verified: 13 bytes\n")
    (tmp_path / "headers.json").write_text(run("sign", "body.json", "--secret", SECRET, "--json").stdout)
    again = run("verify", "body.json", "--headers", "headers.json", "--secret", SECRET, "--json")
    assert (again.exit_code, json.loads(again.stdout)) == (0, {"verified": True})
    # Headers that a tool saved with the request line.
    (tmp_path / "head.txt").write_bytes(b"POST /webhook HTTP/1.1\r\n" + signed.stdout.replace("\n", "\r\n").encode())
    assert run("verify", "body.json", "--headers", "head.txt", "--secret", SECRET).exit_code == 0


def test_verify_reports_the_reason(tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_bytes(b"{}")
    headers = sign(b"{}", SECRET, timestamp=1_600_000_000)
    options = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    old = run("verify", "body.json", *options, UPLIFT_WEBHOOK_SECRET=SECRET)
    assert old.exit_code == 1
    assert "[timestamp_too_old]" in old.stderr
    assert run("verify", "body.json", *options, "--any-age", UPLIFT_WEBHOOK_SECRET=SECRET).exit_code == 0
    other = run("verify", "body.json", *options, "--any-age", UPLIFT_WEBHOOK_SECRET="0123456789abcdef")
    assert "[no_matching_signature]" in other.stderr
    alone = ["-H", f"x-uplift-signature-256: {headers['x-uplift-signature-256']}", "--secret", SECRET]
    assert "[missing_header]" in run("verify", "body.json", *alone).stderr
    assert run("verify", "body.json", *alone, "--allow-uplift-signature").exit_code == 0
    assert SECRET not in old.stderr + other.stderr


def test_verify_explains_the_probable_cause(tmp_path: Path) -> None:
    sent = b'{"id":"e1","type":"test.numbered","created":1,"data":{"number":1}}'
    headers = sign(sent, SECRET)
    options = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    (tmp_path / "body.json").write_text(json.dumps(json.loads(sent), indent=2))
    plain = run("verify", "body.json", *options, UPLIFT_WEBHOOK_SECRET=SECRET)
    explained = run("verify", "body.json", *options, "--explain", UPLIFT_WEBHOOK_SECRET=SECRET)
    assert (plain.exit_code, explained.exit_code) == (1, 1)
    assert "[no_matching_signature]" in plain.stderr
    assert "--explain" in plain.stderr
    assert "--explain" not in explained.stderr
    assert "[body_reserialised]" in explained.stderr
    assert len(explained.stderr.splitlines()) == 2
    (tmp_path / "body.json").write_bytes(sent)
    assert run("verify", "body.json", *options, "--explain", UPLIFT_WEBHOOK_SECRET=SECRET).exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "body.json"],
        ["verify", "body.json", "-H", "nonsense"],
        ["verify", "missing.json", "-H", "a: b"],
        ["verify", "body.json", "--headers", "wrong.json"],
        ["verify", "body.json", "-H", "a: b", "--secret", "short"],
        ["sign", "body.json", "--secret", "short"],
        ["sign", "missing.json", "--secret", SECRET],
    ],
)
def test_invalid_arguments_of_sign_and_verify(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "body.json").write_bytes(b"{}")
    (tmp_path / "wrong.json").write_text('{"a"')
    result = run(*arguments)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 2


def test_sign_and_verify_need_a_secret(tmp_path: Path) -> None:
    (tmp_path / "body.json").write_bytes(b"{}")
    for arguments in (["sign", "body.json"], ["verify", "body.json", "-H", "a: b"]):
        assert run(*arguments).exit_code == 2


@pytest.mark.parametrize(
    ("url", "key", "fault"),
    [
        ("nonsense", "sk_1", "UPLIFT_API_URL"),
        ("https://u:p@x.example", "sk_1", "UPLIFT_API_URL"),
        ("https://x.example", "sk 1", "UPLIFT_API_KEY"),
    ],
)
def test_an_invalid_setting_names_its_variable(url: str, key: str, fault: str) -> None:
    result = run("events", UPLIFT_API_URL=url, UPLIFT_API_KEY=key)
    assert (result.exit_code, result.stderr.splitlines()[1]) == (2, f"How to fix: correct {fault}")


def test_an_invalid_proxy_names_its_variable() -> None:
    environ = {
        "UPLIFT_API_URL": "https://x.example",
        "UPLIFT_API_KEY": "sk_1",
        "HTTPS_PROXY": "ftp://y",
        "NO_PROXY": "",
    }
    assert "HTTPS_PROXY" in run("events", **environ).stderr.splitlines()[1]


@pytest.mark.parametrize(
    "response",
    [(404, b"<html>", {}), (200, b"<html>", {}), (405, {"error": "no"}, {}), (501, b"<html>", {})],
)
def test_a_response_of_another_server_is_reported(response: Any) -> None:
    with fake_api() as api:
        api.responses["GET /v1/events"] = response
        result = run("events", "--api-url", api.url, UPLIFT_API_KEY="sk_1")
    assert result.exit_code == 2
    cause, remedy = result.stderr.splitlines()
    assert f"the server at {api.url} is not an Uplift Webhooks server" in cause
    assert remedy == "How to fix: correct --api-url"


def test_an_empty_response_is_not_a_session() -> None:
    """Receivers of webhooks often respond in this way to every POST."""
    with fake_api() as api:
        api.responses["POST /v1/listen-sessions"] = (200, b"", {})
        result = run("listen", "--api-url", api.url, UPLIFT_API_KEY="sk_1")
    assert result.exit_code == 2
    assert f"the server at {api.url} is not an Uplift Webhooks server" in result.stderr


def test_https_on_an_http_port_is_reported() -> None:
    with fake_api() as api:
        result = run("events", UPLIFT_API_URL=api.url.replace("http:", "https:"), UPLIFT_API_KEY="sk_1")
    assert (result.exit_code, "does not use TLS" in result.stderr) == (2, True)
    assert "correct UPLIFT_API_URL" in result.stderr


def test_a_url_with_the_version_works() -> None:
    with fake_api() as api:
        api.responses["GET /v1/events"] = {"data": []}
        assert run("events", UPLIFT_API_URL=f"{api.url}/v1/", UPLIFT_API_KEY="sk_1").exit_code == 0


@pytest.mark.parametrize(("shell", "expected"), [("bash", "COMPREPLY"), ("zsh", "compdef"), ("fish", "complete ")])
def test_show_completion_prints_the_script_of_a_shell(shell: str, expected: str) -> None:
    result = run("--show-completion", shell)
    assert (result.exit_code, expected in result.stdout) == (0, True)
    assert "_UPLIFT_COMPLETE" in result.stdout


def test_install_completion_writes_the_script_of_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    result = run("--install-completion", "fish")
    assert (result.exit_code, "fish" in result.stdout) == (0, True)
    assert "_UPLIFT_COMPLETE" in (tmp_path / ".config/fish/completions/uplift.fish").read_text()


@pytest.mark.parametrize("path", [(), ("events",), ("listen",), ("verify",)], ids=" ".join)
def test_flags_have_no_type(path: tuple[str, ...]) -> None:
    assert "bool" not in run(*path, "--help").stdout


def test_ctrl_c_during_loading_exits_without_a_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original_import = builtins.__import__

    def interrupted(name: str, *others: Any) -> Any:
        if name == "uplift_webhooks.cli.main":
            raise KeyboardInterrupt
        return original_import(name, *others)

    monkeypatch.setattr(builtins, "__import__", interrupted)
    with pytest.raises(SystemExit) as caught:
        cli.run()
    assert (caught.value.code, capsys.readouterr().err) == (130, "")


def _run_with_closed_output(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command with a closed standard output."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", "from uplift_webhooks.cli import run; run()", *arguments]
    with fake_api() as api:
        environ = {**os.environ, "UPLIFT_API_URL": api.url, "UPLIFT_API_KEY": "sk_1"}
        api.responses["GET /v1/endpoints/ep_1"] = {"id": "ep_1", "url": "https://x"}
        api.responses["GET /v1/replays"] = {"data": [{"id": "rpl_1"}]}
        api.responses["GET /v1/event-types/a.b"] = {"name": "a.b", "schema": {}, "example": {}}
        api.responses["POST /v1/endpoints"] = {"id": "ep_1", "secret": "whsec_x"}
        api.responses["GET /v1/listen-sessions"] = {"data": [{"id": "lsn_1", "connected": True}]}
        api.responses["POST /v1/listen-sessions/lsn_1/test"] = {"event": "e", "answer": {"status_code": 200}}
        done = subprocess.run(
            command, env=environ, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    os.close(writing)
    return done


@pytest.mark.parametrize(
    "arguments",
    [["trigger"], ["endpoints", "show", "ep_1"], ["replays", "show", "rpl_1"], ["event-types", "show", "a.b"]],
)
def test_a_closed_pipe_exits_with_0(arguments: list[str]) -> None:
    done = _run_with_closed_output(*arguments)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_secret_into_a_closed_pipe_is_an_error() -> None:
    done = _run_with_closed_output("endpoints", "create", "https://x.example")
    assert (done.returncode, "cannot write the output" in done.stderr) == (1, True)
