"""Commands that check the mail server, with and without a test email."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.mail.smtp_server import SmtpStub
from typer.testing import CliRunner, Result

from uplift_server.cli.main import app
from uplift_server.service import diagnostics


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UPLIFT_PORT", "0")
    monkeypatch.setattr(diagnostics, "RESOLVED_NAME", "localhost")


@pytest.fixture
def smtp_server() -> Iterator[SmtpStub]:
    """A running mail server."""
    smtp_server = SmtpStub().open()
    yield smtp_server
    smtp_server.close()


def run(*args: str, port: int | None = None, **environ: str) -> Result:
    if port is not None:
        environ |= {"UPLIFT_SMTP_URL": f"smtp://127.0.0.1:{port}", "UPLIFT_MAIL_FROM": "a@uplift.example"}
    return CliRunner().invoke(app, args, env=environ)


def findings(result: Result) -> dict[str, tuple[str, str]]:
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    return {row["check"]: (row["result"], row["text"] + row["remedy"]) for row in rows}


def test_a_test_email_arrives(smtp_server: SmtpStub) -> None:
    result = run("mail", "test", "coach@rapids.example", port=smtp_server.port)
    assert result.exit_code == 0
    assert "coach@rapids.example" in result.stdout
    (received,) = smtp_server.received
    assert (received.sender, received.recipient) == ("a@uplift.example", "coach@rapids.example")
    assert "Test email" in received.message["Subject"]
    assert list(Path().iterdir()) == []


def test_two_test_emails_are_two(smtp_server: SmtpStub) -> None:
    for _ in range(2):
        result = run("mail", "test", "coach@rapids.example", "--json", port=smtp_server.port)
        assert json.loads(result.stdout)["recipient"] == "coach@rapids.example"
    assert len({received.message["Message-ID"] for received in smtp_server.received}) == 2


def test_an_error_shows_its_fix(smtp_server: SmtpStub) -> None:
    smtp_server.reject_recipient = lambda _: "550 unknown user"
    rejected = run("mail", "test", "coach@rapids.example", port=smtp_server.port)
    assert rejected.exit_code == 1
    assert "550 unknown user" in rejected.stderr
    assert "How to fix:" in rejected.stderr
    assert run("mail", "test", "coach", port=smtp_server.port).exit_code == 2
    unset = run("mail", "test", "coach@rapids.example")
    assert unset.exit_code == 2
    assert "UPLIFT_SMTP_URL is not set" in unset.stderr


def test_the_doctor_connects_and_sends_nothing(smtp_server: SmtpStub) -> None:
    result = run("doctor", "--json", port=smtp_server.port, UPLIFT_OPERATOR_EMAIL="operations@uplift.example")
    assert findings(result)["mail"] == ("ok", f"127.0.0.1:{smtp_server.port} responds (not encrypted)")
    assert "operator mail" not in findings(result)
    assert smtp_server.commands == ["EHLO", "QUIT"]
    assert smtp_server.received == []


def test_the_doctor_finds_an_unavailable_mail_server() -> None:
    result = run("doctor", "--json", port=1)
    assert result.exit_code == 1
    result_, text = findings(result)["mail"]
    assert result_ == "fail"
    assert "connection refused" in text


def test_the_doctor_warns_about_a_missing_operator_email(smtp_server: SmtpStub) -> None:
    assert findings(run("doctor", "--json", port=smtp_server.port))["operator mail"][0] == "warn"
    without = findings(run("doctor", "--json", UPLIFT_OPERATOR_EMAIL="operations@uplift.example"))
    assert without["mail"][0] == "ok"
    assert without["operator mail"][0] == "warn"
    assert "operator mail" not in findings(run("doctor", "--json"))
