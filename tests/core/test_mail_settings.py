"""The settings of the SMTP server and the sender address, as operators write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.people.mail_settings import Mailbox, MailServer, parse_mail_server, parse_mailbox


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("smtp://localhost", MailServer("localhost", 25, False)),
        ("smtp://localhost/", MailServer("localhost", 25, False)),
        ("smtp://Mail.Example.com:2525", MailServer("mail.example.com", 2525, False)),
        ("smtp://user:word@mail.example.com", MailServer("mail.example.com", 587, False, "user", "word")),
        ("smtps://mail.example.com", MailServer("mail.example.com", 465, True)),
        ("smtps://a%40b.de:p%3A%2F%25w@mail.example.com", MailServer("mail.example.com", 465, True, "a@b.de", "p:/%w")),
        ("smtp://u:w%C3%B6rd@mail.example.com:25", MailServer("mail.example.com", 25, False, "u", "wörd")),
        ("smtp://u:a:b@mail.example.com", MailServer("mail.example.com", 587, False, "u", "a:b")),
        ("smtp://192.0.2.1", MailServer("192.0.2.1", 25, False)),
        ("smtp://[2001:db8::1]:26", MailServer("2001:db8::1", 26, False)),
    ],
)  # fmt: skip
def test_valid_servers(text: str, server: MailServer) -> None:
    assert parse_mail_server(text) == server


@pytest.mark.parametrize(
    "text",
    [
        "mail.example.com",
        "http://mail.example.com",
        "smtp://",
        "smtp://:25",
        "smtp://mail.example.com:0",
        "smtp://mail.example.com:65536",
        "smtp://mail.example.com:x",
        "smtp://[::1",
        "smtp://[::1%25eth0]",
        "smtp://[::x]",
        "smtp://[v1.a:b]",
        "smtp://-mail.example.com",
        "smtp://mail..example.com",
        "smtp://bücher.example",
        "smtp://mail.example.com/inbox",
        "smtp://mail.example.com?tls=no",
        "smtp://mail.example.com?",
        "smtp://mail.example.com#x",
        "smtp://user@mail.example.com",
        "smtp://user:@mail.example.com",
        "smtp://:word@mail.example.com",
        "smtp://@mail.example.com",
        "smtp://user:wo#rd@mail.example.com",
        "smtp://user:wo/rd@mail.example.com",
        "smtp://user:wo@rd@mail.example.com",
        "smtp://user:100%@mail.example.com",
        "smtp://user:%ff@mail.example.com",
        "smtp://user:%0d%0aRSET@mail.example.com",
        "smtp://user:%00@mail.example.com",
    ],
)
def test_invalid_servers_are_rejected_without_showing_them(text: str) -> None:
    with pytest.raises(ValueError, match=r"[a-z]") as caught:
        parse_mail_server(text)
    rest = text.partition("//")[2]
    assert not rest or rest not in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_a_server_or_rejected(text: str) -> None:
    for whole in (text, f"smtp://{text}", f"smtp://{text}@mail.example.com"):
        try:
            assert parse_mail_server(whole).host
        except ValueError:
            continue


def test_a_password_or_smtps_needs_a_protected_connection() -> None:
    assert not parse_mail_server("smtp://localhost").protected
    assert parse_mail_server("smtp://u:p@localhost").protected
    assert parse_mail_server("smtps://localhost").protected


def test_the_password_is_hidden() -> None:
    assert "geheim" not in repr(parse_mail_server("smtp://u:geheim@localhost"))


@pytest.mark.parametrize(
    ("text", "mailbox"),
    [
        ("a@b.example", Mailbox("", "a@b.example")),
        (" a@b.example ", Mailbox("", "a@b.example")),
        ("<a@b.example>", Mailbox("", "a@b.example")),
        ("Uplift Webhooks <a@b.example>", Mailbox("Uplift Webhooks", "a@b.example")),
        ('"Uplift, Webhooks" <a@b.example>', Mailbox("Uplift, Webhooks", "a@b.example")),
        ("Zürich <a@b.example>", Mailbox("Zürich", "a@b.example")),
    ],
)
def test_mailboxes(text: str, mailbox: Mailbox) -> None:
    assert parse_mailbox(text) == mailbox


@pytest.mark.parametrize(
    "text", ["", "a", "a@b@c", "Name", "Name a@b.example", "Name <>", "Na\nme <a@b.example>", "<a@b>, <c@d>", "ä@b.de"]
)
def test_invalid_mailboxes_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r"[A-Z]"):
        parse_mailbox(text)
