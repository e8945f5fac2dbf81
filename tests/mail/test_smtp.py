"""The SMTP client: encryption, certificates, passwords and timeouts."""

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from urllib.parse import quote

import pytest
from tests.mail.conftest import Authority
from tests.mail.smtp_server import PASSWORD, USER, SmtpStub, silent_port

from uplift_server.core.people.mail_settings import parse_mail_server
from uplift_server.mail.failures import MailNotSent
from uplift_server.mail.smtp import SmtpServer

LOGIN = f"{quote(USER, safe='')}:{quote(PASSWORD, safe='')}@"
MESSAGE = b"From: a@uplift.example\r\nTo: b@rapids.example\r\nSubject: x\r\n\r\n.dot\r\n"


def relay(url: str, port: int, ca_file: str | None = None, seconds: float = 5) -> SmtpServer:
    server = parse_mail_server(f"{url}:{port}")
    return SmtpServer(server, own_name="hooks.uplift.example", ca_file=ca_file, exchange_seconds=seconds)


async def send(to: SmtpServer, recipient: str = "b@rapids.example") -> None:
    async with to.connected() as connection:
        await connection.send("a@uplift.example", recipient, MESSAGE)


async def send_failure(to: SmtpServer) -> MailNotSent:
    with pytest.raises(MailNotSent) as caught:
        await send(to)
    assert caught.value.remedy
    assert PASSWORD not in caught.value.cause + caught.value.remedy
    return caught.value


async def test_a_message_is_sent_without_login_and_tls(smtp_server: SmtpStub) -> None:
    smtp_server.open()
    await send(relay("smtp://127.0.0.1", smtp_server.port))
    (received,) = smtp_server.received
    assert (received.sender, received.recipient) == ("a@uplift.example", "b@rapids.example")
    assert received.content == MESSAGE
    assert not received.encrypted
    assert smtp_server.names == ["hooks.uplift.example"]
    assert smtp_server.commands[-1] == "QUIT"


async def test_starttls_is_used_if_offered_with_any_certificate(smtp_server: SmtpStub, authority: Authority) -> None:
    """Mail servers in private networks often have self-signed certificates."""
    smtp_server.open(starttls=authority.server("elsewhere.example"))
    await send(relay("smtp://127.0.0.1", smtp_server.port))
    assert smtp_server.received[0].encrypted


async def test_a_login_uses_starttls(smtp_server: SmtpStub, authority: Authority) -> None:
    smtp_server.open(starttls=authority.server("127.0.0.1"), login=True)
    async with relay(f"smtp://{LOGIN}127.0.0.1", smtp_server.port, authority.file).connected() as connection:
        assert (connection.encrypted, connection.logged_in) == (True, True)
        await connection.send("a@uplift.example", "b@rapids.example", MESSAGE)
    (received,) = smtp_server.received
    assert (received.encrypted, received.logged_in) == (True, True)
    assert smtp_server.passwords == [(USER, PASSWORD)]


async def test_a_login_uses_tls_from_the_start(smtp_server: SmtpStub, authority: Authority) -> None:
    smtp_server.open(tls=authority.server("127.0.0.1"), login=True)
    await send(relay(f"smtps://{LOGIN}127.0.0.1", smtp_server.port, authority.file))
    (received,) = smtp_server.received
    assert (received.encrypted, received.logged_in) == (True, True)


async def test_no_password_is_sent_without_starttls(smtp_server: SmtpStub) -> None:
    smtp_server.open(login=True)
    failure = await send_failure(relay(f"smtp://{LOGIN}127.0.0.1", smtp_server.port))
    assert "does not offer STARTTLS" in failure.cause
    assert not failure.permanent
    assert smtp_server.passwords == []
    assert "MAIL" not in smtp_server.commands


@pytest.mark.parametrize("name", ["127.0.0.1", "elsewhere.example"])
@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
async def test_no_password_is_sent_with_an_untrusted_certificate(
    smtp_server: SmtpStub, authority: Authority, name: str, scheme: str
) -> None:
    context = authority.server(name)
    smtp_server.open(login=True, **{"starttls" if scheme == "smtp" else "tls": context})
    trusted = authority.file if name == "elsewhere.example" else None
    failure = await send_failure(relay(f"{scheme}://{LOGIN}127.0.0.1", smtp_server.port, trusted))
    assert "certificate" in failure.cause
    assert "UPLIFT_EGRESS_CA_FILE" in failure.remedy
    assert smtp_server.passwords == []


async def test_smtps_verifies_the_certificate_without_a_login(smtp_server: SmtpStub, authority: Authority) -> None:
    smtp_server.open(tls=authority.server("127.0.0.1"))
    assert "certificate" in (await send_failure(relay("smtps://127.0.0.1", smtp_server.port))).cause
    await send(relay("smtps://127.0.0.1", smtp_server.port, authority.file))


async def test_a_wrong_password_error_has_a_fix(smtp_server: SmtpStub, authority: Authority) -> None:
    smtp_server.open(starttls=authority.server("127.0.0.1"), login=True)
    failure = await send_failure(relay("smtp://uplift:wrong@127.0.0.1", smtp_server.port, authority.file))
    assert "rejected the login: 535" in failure.cause
    assert not failure.permanent


async def test_a_server_without_logins_has_its_own_error(smtp_server: SmtpStub, authority: Authority) -> None:
    smtp_server.open(starttls=authority.server("127.0.0.1"))
    failure = await send_failure(relay(f"smtp://{LOGIN}127.0.0.1", smtp_server.port, authority.file))
    assert "does not offer a supported authentication method" in failure.cause


async def test_tls_to_a_plain_port_has_its_own_error(smtp_server: SmtpStub) -> None:
    smtp_server.open()
    failure = await send_failure(relay("smtps://127.0.0.1", smtp_server.port))
    assert "TLS" in failure.cause
    assert "smtp://" in failure.remedy


@pytest.mark.parametrize(
    ("response", "permanent"),
    [
        ("550 no such user here", True),
        ("550 5.1.1 no such user here", True),
        ("556 5.1.10 the domain accepts no mail", True),
        ("550 5.2.1 mailbox disabled", True),
        ("450 busy", False),
        ("530 log in first", False),
        ("554 5.7.1 relay access denied", False),
        ("550 5.1.8 sender address rejected", False),
        ("552 5.2.2 mailbox full", False),
        ("550 5.4.5 daily sending limit exceeded", False),
    ],
)
async def test_a_rejected_recipient(smtp_server: SmtpStub, response: str, permanent: bool) -> None:
    smtp_server.reject_recipient = lambda _: response
    smtp_server.open()
    failure = await send_failure(relay("smtp://127.0.0.1", smtp_server.port))
    assert response in failure.cause
    assert (failure.permanent, failure.disconnected) == (permanent, False)


async def test_a_rejected_sender_is_never_permanent(smtp_server: SmtpStub) -> None:
    smtp_server.reject_sender = "553 not yours"
    smtp_server.open()
    failure = await send_failure(relay("smtp://127.0.0.1", smtp_server.port))
    assert not failure.permanent
    assert "UPLIFT_MAIL_FROM" in failure.remedy


@pytest.mark.parametrize("response", ["554 Message rejected: Email address is not verified", "550 5.1.1", "451 later"])
async def test_a_rejected_message_is_never_permanent(smtp_server: SmtpStub, response: str) -> None:
    smtp_server.reject_message = lambda _: response
    smtp_server.open()
    failure = await send_failure(relay("smtp://127.0.0.1", smtp_server.port))
    assert response in failure.cause
    assert not failure.permanent


async def test_the_connection_is_reused_after_a_rejected_message(smtp_server: SmtpStub) -> None:
    smtp_server.reject_recipient = lambda recipient: "550 unknown" if recipient.startswith("nobody") else None
    smtp_server.open()
    async with relay("smtp://127.0.0.1", smtp_server.port).connected() as connection:
        with pytest.raises(MailNotSent):
            await connection.send("a@uplift.example", "nobody@rapids.example", MESSAGE)
        await connection.send("a@uplift.example", "b@rapids.example", MESSAGE)
    assert [each.recipient for each in smtp_server.received] == ["b@rapids.example"]
    assert smtp_server.commands.count("EHLO") == 1


async def test_a_connection_closed_by_the_server_is_a_temporary_failure(smtp_server: SmtpStub) -> None:
    smtp_server.reject_recipient = lambda _: "421 going down"
    smtp_server.open()
    failure = await send_failure(relay("smtp://127.0.0.1", smtp_server.port))
    assert (failure.permanent, failure.disconnected) == (False, True)


async def test_responses_are_printable_and_short(smtp_server: SmtpStub) -> None:
    smtp_server.reject_recipient = lambda _: "550 \x1b[2J" + "x" * 400
    smtp_server.open()
    cause = (await send_failure(relay("smtp://127.0.0.1", smtp_server.port))).cause
    assert cause.isprintable()
    assert len(cause) < 300


async def test_a_closed_port_and_an_unknown_host_have_a_cause(smtp_server: SmtpStub) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert "connection refused" in (await send_failure(relay("smtp://127.0.0.1", port))).cause
    assert "does not resolve" in (await send_failure(relay("smtp://nowhere.invalid", port))).cause


async def test_a_missing_ca_file_is_reported(smtp_server: SmtpStub) -> None:
    failure = await send_failure(relay("smtps://127.0.0.1", 1, "/no/such/file"))
    assert "UPLIFT_EGRESS_CA_FILE" in failure.remedy


async def test_a_silent_server_times_out() -> None:
    with silent_port() as port:
        began = time.monotonic()
        failure = await send_failure(relay("smtp://127.0.0.1", port, seconds=0.2))
        assert time.monotonic() - began < 10
    assert "in time" in failure.cause


@pytest.mark.parametrize("step", ["MAIL", "DATA"])
async def test_one_timeout_covers_a_whole_message(smtp_server: SmtpStub, step: str) -> None:
    smtp_server.hang_at = step
    smtp_server.open()
    failure = await send_failure(relay("smtp://127.0.0.1", smtp_server.port, seconds=0.3))
    assert (failure.permanent, failure.disconnected) == (False, True)
    assert smtp_server.received == []


async def test_a_slow_greeting_does_not_extend_the_timeout() -> None:
    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while True:
                writer.write(b"220-hold the line\r\n")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        began = time.monotonic()
        await send_failure(relay("smtp://127.0.0.1", port, seconds=0.3))
        assert time.monotonic() - began < 10
        await asyncio.sleep(0.1)


async def test_a_shorter_timeout_applies_to_the_current_and_later_exchanges(smtp_server: SmtpStub) -> None:
    smtp_server.hang_at = "DATA"
    smtp_server.open()
    slow = relay("smtp://127.0.0.1", smtp_server.port, seconds=60)
    sending = asyncio.ensure_future(send_failure(slow))
    while "DATA" not in smtp_server.commands:
        await asyncio.sleep(0.01)
    began = time.monotonic()
    slow.shorten_timeout(0.2)
    await sending
    await send_failure(slow)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("own_name", "ehlo_name"),
    [("hooks.uplift.example", "hooks.uplift.example"), ("127.0.0.1", "[127.0.0.1]"), ("::1", "[IPv6:::1]")],
)
async def test_an_ip_address_is_an_address_literal_in_ehlo(
    smtp_server: SmtpStub, own_name: str, ehlo_name: str
) -> None:
    smtp_server.open()
    await send(SmtpServer(parse_mail_server(f"smtp://127.0.0.1:{smtp_server.port}"), own_name=own_name))
    assert smtp_server.names == [ehlo_name]


def test_without_emails_the_library_is_not_imported() -> None:
    names = {"aiosmtplib", "jinja2", "uplift_server.mail"}
    program = f"import sys, uplift_server.app; print({names} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert found.stdout == "set()\n"


@pytest.mark.parametrize(
    ("responses", "cause"),
    [
        ([b"554 go away\r\n"], "rejected the connection: 554 go away"),
        ([], "closed the connection"),
        ([b"220 hello\r\n"], "closed the connection"),
        ([b"220 hello\r\n", b"250 SMTP\r\n", b""], "closed the connection"),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "is not an SMTP server"),
    ],
)
async def test_a_rejected_connection_shows_the_response(responses: list[bytes], cause: str) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number, line in enumerate(responses):
            if number:
                await reader.readline()
            writer.write(line)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1", 0) as server:
        failure = await send_failure(relay("smtp://127.0.0.1", server.sockets[0].getsockname()[1]))
    assert cause in failure.cause
    assert (failure.permanent, failure.disconnected) == (False, True)
