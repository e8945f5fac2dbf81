"""Format of email messages: safe headers, both bodies, and reproducible bytes."""

import email
import email.policy
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.mail.examples import AT, LINK_KEY, PUBLIC_URL, example

from uplift_server.core.people.mail_settings import Mailbox
from uplift_server.core.people.notifications import NotificationKind
from uplift_server.mail.emails import compose_email
from uplift_server.mail.messages import message

SENDER = Mailbox("Uplift Webhooks", "webhooks@uplift.example")
HEADERS = {
    "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "X-Auto-Response-Suppress", "MIME-Version",
    "Content-Type",
}  # fmt: skip


def raw(kind: NotificationKind = NotificationKind.ENDPOINT_WARNED, sender: Mailbox = SENDER, **changed: Any) -> bytes:
    notice = example(kind, **changed)
    return message(
        compose_email(notice, PUBLIC_URL, LINK_KEY),
        sender=sender,
        recipient=notice.recipient,
        message_id=notice.id.hex(),
        created_at=notice.created_at,
    )


def parsed(content: bytes) -> EmailMessage:
    found: Any = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    assert not found.defects
    return found


def test_message_headers() -> None:
    found = parsed(raw())
    assert set(found.keys()) == HEADERS
    assert len(found.keys()) == len(HEADERS)
    assert found["From"] == "Uplift Webhooks <webhooks@uplift.example>"
    assert found["To"] == "coach@rapids.example"
    assert found["Message-ID"] == f"<{bytes(range(16)).hex()}@uplift.example>"
    assert parsedate_to_datetime(found["Date"]).timestamp() == AT / 1000
    assert found["Auto-Submitted"] == "auto-generated"
    assert found["X-Auto-Response-Suppress"] == "All"


@pytest.mark.parametrize("kind", NotificationKind)
def test_a_message_has_a_text_and_an_html_body(kind: NotificationKind) -> None:
    found = parsed(raw(kind))
    assert [part.get_content_type() for part in found.walk()] == ["multipart/alternative", "text/plain", "text/html"]


@pytest.mark.parametrize("kind", NotificationKind)
def test_every_byte_is_ascii_and_every_line_short(kind: NotificationKind) -> None:
    facts = {} if kind >= NotificationKind.MASS_FAILURE_BEGAN else {"account": "Fußballakademie Zürich 東京 " * 9}
    content = raw(kind, **facts)
    assert content.isascii()
    lines = content.split(b"\r\n")
    assert not any(b"\r" in each or b"\n" in each for each in lines)
    assert max(map(len, lines)) <= 78


def test_the_same_notification_is_the_same_message() -> None:
    assert raw() == raw()


def test_names_in_all_scripts_are_preserved() -> None:
    name = "Ακαδημία 東京 Zürich"
    found = parsed(raw(account=name, description=name, sender=Mailbox("Uplift Wébhooks, Zürich", SENDER.address)))
    assert found["From"].addresses[0].display_name == "Uplift Wébhooks, Zürich"
    for kind in ("plain", "html"):
        body = found.get_body((kind,))
        assert body is not None
        assert name in body.get_content()


def test_a_host_in_another_script_is_preserved_in_the_subject() -> None:
    assert "bücher.example" in parsed(raw(url="https://bücher.example/"))["Subject"]


def test_a_long_address_is_preserved() -> None:
    domain = ".".join(["d" * 60] * 3) + ".example"
    found = parsed(raw(recipient=f"{'c' * 60}@{domain}", sender=Mailbox("", f"webhooks@{domain}")))
    assert found["To"].addresses[0].addr_spec == f"{'c' * 60}@{domain}"
    assert found["From"].addresses[0].addr_spec == f"webhooks@{domain}"
    assert found["Message-ID"] == f"<{bytes(range(16)).hex()}@{domain}>"
    assert b"=?" not in raw(recipient=f"{'c' * 60}@{domain}", sender=Mailbox("", f"webhooks@{domain}"))


@pytest.mark.parametrize("break_", ["\r\n", "\n", "\r", "\x0b", "\x0c", "\x1e", "\x85", "\u2028", "\u2029"])
@pytest.mark.parametrize("field", ["url", "description", "account", "cause"])
def test_a_line_break_in_user_text_creates_no_header(field: str, break_: str) -> None:
    attack = f"https://x.example{break_}Bcc: all@evil.example{break_}{break_}<h1>body</h1>"
    found = parsed(raw(**{field: attack}))
    assert set(found.keys()) == HEADERS
    assert "bcc" not in found


@pytest.mark.parametrize("mark", ["\u202e", "\u2066", "\u200f", "\u061c"])
def test_text_has_no_bidirectional_marks(mark: str) -> None:
    found = parsed(raw(url=f"https://{mark}elpmaxe.example/", account=f"{mark}Rapids", description=mark))
    everything = found["Subject"] + "".join(part.get_content() for part in found.walk() if not part.is_multipart())
    assert mark not in everything


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=300))
def test_user_text_does_not_change_the_headers(url: str, description: str, account: str) -> None:
    found = parsed(raw(url=url, description=description, account=account))
    assert set(found.keys()) == HEADERS
    assert found["To"] == "coach@rapids.example"
    assert found["Message-ID"] == f"<{bytes(range(16)).hex()}@uplift.example>"
    assert [part.get_content_type() for part in found.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    assert found["Subject"].isprintable()
