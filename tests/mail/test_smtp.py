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
from tests.mail.smtp_server import PASSWORD, USER, Postbox, silence

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


async def failing(to: SmtpServer) -> MailNotSent:
    with pytest.raises(MailNotSent) as caught:
        await send(to)
    assert caught.value.remedy
    assert PASSWORD not in caught.value.cause + caught.value.remedy
    return caught.value


async def test_a_relay_without_login_and_tls_takes_mail(postbox: Postbox) -> None:
    postbox.open()
    await send(relay("smtp://127.0.0.1", postbox.port))
    (received,) = postbox.received
    assert (received.sender, received.recipient) == ("a@uplift.example", "b@rapids.example")
    assert received.content == MESSAGE
    assert not received.encrypted
    assert postbox.names == ["hooks.uplift.example"]
    assert postbox.said[-1] == "QUIT"


async def test_starttls_is_used_where_it_is_offered_whoever_made_the_certificate(
    postbox: Postbox, authority: Authority
) -> None:
    """Many a relay of one's own network has a certificate that nobody signed."""
    postbox.open(starttls=authority.server("elsewhere.example"))
    await send(relay("smtp://127.0.0.1", postbox.port))
    assert postbox.received[0].encrypted


async def test_a_login_goes_over_starttls(postbox: Postbox, authority: Authority) -> None:
    postbox.open(starttls=authority.server("127.0.0.1"), login=True)
    async with relay(f"smtp://{LOGIN}127.0.0.1", postbox.port, authority.file).connected() as connection:
        assert (connection.encrypted, connection.logged_in) == (True, True)
        await connection.send("a@uplift.example", "b@rapids.example", MESSAGE)
    (received,) = postbox.received
    assert (received.encrypted, received.logged_in) == (True, True)
    assert postbox.passwords == [(USER, PASSWORD)]


async def test_a_login_goes_over_tls_from_the_start(postbox: Postbox, authority: Authority) -> None:
    postbox.open(tls=authority.server("127.0.0.1"), login=True)
    await send(relay(f"smtps://{LOGIN}127.0.0.1", postbox.port, authority.file))
    (received,) = postbox.received
    assert (received.encrypted, received.logged_in) == (True, True)


async def test_a_server_that_does_not_offer_starttls_gets_no_password(postbox: Postbox) -> None:
    postbox.open(login=True)
    failure = await failing(relay(f"smtp://{LOGIN}127.0.0.1", postbox.port))
    assert "does not offer STARTTLS" in failure.cause
    assert not failure.permanent
    assert postbox.passwords == []
    assert "MAIL" not in postbox.said


@pytest.mark.parametrize("name", ["127.0.0.1", "elsewhere.example"])
@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
async def test_a_server_whose_certificate_is_false_gets_no_password(
    postbox: Postbox, authority: Authority, name: str, scheme: str
) -> None:
    context = authority.server(name)
    postbox.open(login=True, **{"starttls" if scheme == "smtp" else "tls": context})
    trusted = authority.file if name == "elsewhere.example" else None
    failure = await failing(relay(f"{scheme}://{LOGIN}127.0.0.1", postbox.port, trusted))
    assert "certificate" in failure.cause
    assert "UPLIFT_EGRESS_CA_FILE" in failure.remedy
    assert postbox.passwords == []


async def test_a_certificate_is_verified_with_smtps_also_without_login(postbox: Postbox, authority: Authority) -> None:
    postbox.open(tls=authority.server("127.0.0.1"))
    assert "certificate" in (await failing(relay("smtps://127.0.0.1", postbox.port))).cause
    await send(relay("smtps://127.0.0.1", postbox.port, authority.file))


async def test_a_wrong_password_is_told_as_the_operators_to_correct(postbox: Postbox, authority: Authority) -> None:
    postbox.open(starttls=authority.server("127.0.0.1"), login=True)
    failure = await failing(relay("smtp://uplift:wrong@127.0.0.1", postbox.port, authority.file))
    assert "refuses the login: 535" in failure.cause
    assert not failure.permanent


async def test_a_server_without_logins_is_told_apart(postbox: Postbox, authority: Authority) -> None:
    postbox.open(starttls=authority.server("127.0.0.1"))
    failure = await failing(relay(f"smtp://{LOGIN}127.0.0.1", postbox.port, authority.file))
    assert "no way to log in" in failure.cause


async def test_tls_towards_a_port_without_it_is_told_apart(postbox: Postbox) -> None:
    postbox.open()
    failure = await failing(relay("smtps://127.0.0.1", postbox.port))
    assert "TLS" in failure.cause
    assert "smtp://" in failure.remedy


@pytest.mark.parametrize(
    ("answer", "permanent"), [("550 no such user here", True), ("450 busy", False), ("530 log in first", False)]
)
async def test_a_refused_recipient(postbox: Postbox, answer: str, permanent: bool) -> None:
    postbox.refuse_recipient = lambda _: answer
    postbox.open()
    failure = await failing(relay("smtp://127.0.0.1", postbox.port))
    assert answer in failure.cause
    assert (failure.permanent, failure.disconnected) == (permanent, False)


async def test_a_refused_sender_is_never_permanent_since_it_is_ours(postbox: Postbox) -> None:
    postbox.refuse_sender = "553 not yours"
    postbox.open()
    failure = await failing(relay("smtp://127.0.0.1", postbox.port))
    assert not failure.permanent
    assert "UPLIFT_MAIL_FROM" in failure.remedy


@pytest.mark.parametrize(("answer", "permanent"), [("554 looks like spam", True), ("451 later", False)])
async def test_a_refused_message(postbox: Postbox, answer: str, permanent: bool) -> None:
    postbox.refuse_message = lambda _: answer
    postbox.open()
    assert (await failing(relay("smtp://127.0.0.1", postbox.port))).permanent is permanent


async def test_the_connection_takes_the_next_message_after_a_refused_one(postbox: Postbox) -> None:
    postbox.refuse_recipient = lambda recipient: "550 unknown" if recipient.startswith("nobody") else None
    postbox.open()
    async with relay("smtp://127.0.0.1", postbox.port).connected() as connection:
        with pytest.raises(MailNotSent):
            await connection.send("a@uplift.example", "nobody@rapids.example", MESSAGE)
        await connection.send("a@uplift.example", "b@rapids.example", MESSAGE)
    assert [each.recipient for each in postbox.received] == ["b@rapids.example"]
    assert postbox.said.count("EHLO") == 1


async def test_a_server_that_takes_its_leave_is_left(postbox: Postbox) -> None:
    postbox.refuse_recipient = lambda _: "421 going down"
    postbox.open()
    failure = await failing(relay("smtp://127.0.0.1", postbox.port))
    assert (failure.permanent, failure.disconnected) == (False, True)


async def test_what_a_server_says_cannot_steer_a_terminal_and_is_short(postbox: Postbox) -> None:
    postbox.refuse_recipient = lambda _: "550 \x1b[2J" + "x" * 400
    postbox.open()
    cause = (await failing(relay("smtp://127.0.0.1", postbox.port))).cause
    assert cause.isprintable()
    assert len(cause) < 300


async def test_a_closed_port_and_an_unknown_host(postbox: Postbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert "connection refused" in (await failing(relay("smtp://127.0.0.1", port))).cause
    assert "does not resolve" in (await failing(relay("smtp://nowhere.invalid", port))).cause


async def test_a_file_of_authorities_that_is_gone_is_told(postbox: Postbox) -> None:
    failure = await failing(relay("smtps://127.0.0.1", 1, "/no/such/file"))
    assert "UPLIFT_EGRESS_CA_FILE" in failure.remedy


async def test_a_server_that_never_speaks_has_a_deadline() -> None:
    with silence() as port:
        began = time.monotonic()
        failure = await failing(relay("smtp://127.0.0.1", port, seconds=0.2))
        assert time.monotonic() - began < 10
    assert "in time" in failure.cause


@pytest.mark.parametrize("step", ["MAIL", "DATA"])
async def test_one_deadline_covers_a_whole_message(postbox: Postbox, step: str) -> None:
    postbox.hang_at = step
    postbox.open()
    failure = await failing(relay("smtp://127.0.0.1", postbox.port, seconds=0.3))
    assert (failure.permanent, failure.disconnected) == (False, True)
    assert postbox.received == []


async def test_a_server_that_drips_its_greeting_has_no_longer() -> None:
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
        await failing(relay("smtp://127.0.0.1", port, seconds=0.3))
        assert time.monotonic() - began < 10
        await asyncio.sleep(0.1)


async def test_a_hurry_shortens_what_is_under_way_and_what_comes(postbox: Postbox) -> None:
    postbox.hang_at = "DATA"
    postbox.open()
    slow = relay("smtp://127.0.0.1", postbox.port, seconds=60)
    under_way = asyncio.ensure_future(failing(slow))
    while "DATA" not in postbox.said:
        await asyncio.sleep(0.01)
    began = time.monotonic()
    slow.shorten_timeout(0.2)
    await under_way
    await failing(slow)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("own_name", "told"),
    [("hooks.uplift.example", "hooks.uplift.example"), ("127.0.0.1", "[127.0.0.1]"), ("::1", "[IPv6:::1]")],
)
async def test_an_address_introduces_itself_as_one(postbox: Postbox, own_name: str, told: str) -> None:
    postbox.open()
    await send(SmtpServer(parse_mail_server(f"smtp://127.0.0.1:{postbox.port}"), own_name=own_name))
    assert postbox.names == [told]


def test_a_server_that_sends_no_mail_does_not_carry_it_in_memory() -> None:
    names = {"aiosmtplib", "jinja2", "uplift_server.mail"}
    look = f"import sys, uplift_server.app; print({names} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True)
    assert found.stdout == "set()\n"


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ([b"554 go away\r\n"], "does not want us now: 554 go away"),
        ([], "ended the connection"),
        ([b"220 hello\r\n"], "ended the connection"),
        ([b"220 hello\r\n", b"250 SMTP\r\n", b""], "ended the connection"),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "does not speak SMTP"),
    ],
)
async def test_a_server_that_does_not_want_us_is_told_in_its_words(said: list[bytes], cause: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number, line in enumerate(said):
            if number:
                await reader.readline()
            writer.write(line)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        failure = await failing(relay("smtp://127.0.0.1", server.sockets[0].getsockname()[1]))
    assert cause in failure.cause
    assert (failure.permanent, failure.disconnected) == (False, True)
