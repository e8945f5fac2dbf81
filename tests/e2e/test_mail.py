"""Emails from a real process to a real mail server: one per contact, despite kills."""

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.engines import Place, PostgresPlace
from tests.mail.examples import example
from tests.mail.smtp_server import SmtpStub

from uplift_server.core.ids import uuid7
from uplift_server.core.people.notifications import NotificationKind
from uplift_server.store import outbox

from .fleet import Fleet
from .harness import Api, Server, settled, wait_for
from .receiving import Receiver, respond

COACH, DATA = "coach@rapids.example", "data@rapids.example"
OBSERVE_S = 5
"""Long enough for several rounds of the outbox."""


@pytest.fixture
def mail_server() -> Iterator[SmtpStub]:
    """A running mail server."""
    mail_server = SmtpStub().open()
    yield mail_server
    mail_server.close()


@pytest.fixture
def server_with_email(tmp_path: Path) -> Iterator[Server]:
    """A server with email settings that is not started yet."""
    server = Server(tmp_path, UPLIFT_MAIL_FROM="Uplift Webhooks <webhooks@uplift.example>")
    yield server
    server.end()


def start(server: Server, port: int) -> None:
    server.environ["UPLIFT_SMTP_URL"] = f"smtp://127.0.0.1:{port}"
    server.start()


def add_notifications(place: Place, *recipients: str) -> None:
    """Add notifications to the outbox, as the server does for a failing endpoint."""
    now = time.time_ns() // 1_000_000
    ids = [uuid7(now, number.to_bytes(10, "big")) for number in range(len(recipients))]
    place.run(
        lambda connection: outbox.add(
            connection,
            NotificationKind.ENDPOINT_WARNED,
            account_seq=1,
            endpoint_seq=1,
            recipients=list(zip(ids, recipients, strict=True)),
            facts=example(NotificationKind.ENDPOINT_WARNED).facts,
            now=now,
        )
    )


def sent(place: Place) -> list[Any]:
    """Return the recipients of emails that are marked as sent."""
    query = "SELECT recipient FROM notices WHERE sent_at IS NOT NULL ORDER BY seq"
    return [recipient for (recipient,) in place.query(query)]


def arrivals(mail_server: SmtpStub) -> list[str]:
    return sorted(each.recipient for each in mail_server.received)


def messages(mail_server: SmtpStub) -> list[str]:
    """Return the recipient of each message, without duplicates of a message.

    If the server is killed after the mail server accepted a message, the restarted server may resend it (RFC 1047).
    The copies are identical, and mail programs show only one.
    """
    by_id: dict[tuple[str, str], set[bytes]] = {}
    for each in mail_server.received:
        by_id.setdefault((each.recipient, each.message["Message-ID"]), set()).add(each.content)
    assert all(len(contents) == 1 for contents in by_id.values())
    return sorted(recipient for recipient, _ in by_id)


def test_a_kill_before_sending_still_sends_one_email_per_contact(
    server_with_email: Server, mail_server: SmtpStub, receiver: Receiver
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(20)
        start(server_with_email, silent.getsockname()[1])
        add_notifications(server_with_email.place, COACH, DATA)
        connected, _ = silent.accept()
        # The mail server does not respond, and everything else continues.
        _, api = server_with_email.account()
        api.endpoint(receiver.url("/x"))
        event = api.send(1).json["id"]
        (delivery,) = api.ok("GET", f"/v1/events/{event}/deliveries")["data"]
        assert settled(api, delivery["id"], 5)["status"] == "delivered"
        server_with_email.kill()
        connected.close()
    start(server_with_email, mail_server.port)
    wait_for(lambda: sent(server_with_email.place) == [COACH, DATA], "both are marked as sent")
    time.sleep(OBSERVE_S)
    assert arrivals(mail_server) == [COACH, DATA]
    assert len({each.message["Message-ID"] for each in mail_server.received}) == 2
    assert server_with_email.stop() == 0
    server_with_email.start()
    time.sleep(OBSERVE_S)
    assert arrivals(mail_server) == [COACH, DATA]


def test_a_kill_after_sending_repeats_the_same_message(server_with_email: Server, mail_server: SmtpStub) -> None:
    mail_server.hold_response = True
    start(server_with_email, mail_server.port)
    add_notifications(server_with_email.place, COACH, DATA)
    wait_for(lambda: mail_server.received, "the mail server accepted an email")
    server_with_email.kill()
    mail_server.hold_response = False
    server_with_email.start()
    wait_for(lambda: sent(server_with_email.place) == [COACH, DATA], "both are marked as sent")
    assert arrivals(mail_server) == [COACH, COACH, DATA]
    first, again = (each.content for each in mail_server.received if each.recipient == COACH)
    assert first == again


def test_a_stop_does_not_wait_for_a_hanging_mail_server(server_with_email: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(20)
        start(server_with_email, silent.getsockname()[1])
        add_notifications(server_with_email.place, COACH)
        connected, _ = silent.accept()
        began = time.monotonic()
        assert server_with_email.stop() == 0, server_with_email.log
        assert time.monotonic() - began < 10
        connected.close()
    assert not any("Traceback" in line for line in server_with_email.log), server_with_email.log
    assert sent(server_with_email.place) == []


def test_an_email_in_progress_at_a_stop_is_sent_once(tmp_path: Path, postgres_url: str, mail_server: SmtpStub) -> None:
    place = PostgresPlace(postgres_url, postgres_url)
    leader_query = "SELECT process_seq FROM duties WHERE name = 'outbox'"
    mail = {"UPLIFT_MAIL_FROM": "webhooks@uplift.example", "UPLIFT_SMTP_URL": f"smtp://127.0.0.1:{mail_server.port}"}
    with Fleet(tmp_path, postgres_url, **mail) as fleet:
        first = fleet.add("worker")
        wait_for(lambda: place.query(leader_query), "the first worker leads the outbox")
        fleet.add("worker")
        leader = place.query(leader_query)
        mail_server.hang_at = "DATA"
        add_notifications(place, COACH)
        wait_for(lambda: mail_server.is_hanging, "an email is in flight")
        mail_server.hang_at = None
        first.terminate()
        # The stop waits for the email in flight.
        time.sleep(0.3)
        assert place.query(leader_query) == leader
        mail_server.resume()
        assert first.process is not None
        assert first.process.wait(25) == 0
        wait_for(lambda: place.query(leader_query) not in ([(0,)], leader), "the other worker leads the outbox")
        time.sleep(OBSERVE_S)
        assert arrivals(mail_server) == sent(place) == [COACH]


def state_of(api: Api, endpoint: str) -> str:
    return str(api.ok("GET", f"/v1/endpoints/{endpoint}")["state"])


def test_warning_and_disable_emails_survive_kills(
    server_with_email: Server, mail_server: SmtpStub, receiver: Receiver
) -> None:
    """The server sends the warning and disables the endpoint after seconds instead of days."""
    server_with_email.environ |= {
        "UPLIFT_WARN_AFTER": "4s",
        "UPLIFT_DISABLE_AFTER": "10s",
        "UPLIFT_RETRY_SCHEDULE": ",".join(["300ms"] * 60),
        "UPLIFT_BREAKER_FAILURES": "0",
    }
    start(server_with_email, mail_server.port)
    account, api = server_with_email.account()
    server_with_email.api().ok("PATCH", f"/v1/accounts/{account}", {"contact_emails": [COACH, DATA]})
    receiver.url("/broken", respond(500))
    endpoint = api.endpoint(receiver.url("/broken"))["id"]
    event = api.send(1).json["id"]
    wait_for(lambda: messages(mail_server) == [COACH, DATA], "both contacts receive a warning")
    server_with_email.kill()
    server_with_email.start()
    host = f"127.0.0.1:{receiver.port}"
    subjects = [each.message["Subject"] for each in mail_server.received]
    assert all(subject.startswith(f"Webhooks to {host}/broken are failing") for subject in subjects)
    assert endpoint in mail_server.received[0].text
    wait_for(lambda: state_of(api, endpoint) == "disabled", "the endpoint is disabled")
    server_with_email.kill()
    server_with_email.start()
    wait_for(lambda: len(sent(server_with_email.place)) == 4, "all emails are marked as sent")
    time.sleep(OBSERVE_S)
    assert messages(mail_server) == [COACH, COACH, DATA, DATA]
    assert mail_server.received[-1].message["Subject"] == f"Webhooks to {host}/broken are disabled"
    (delivery,) = api.ok("GET", f"/v1/events/{event}/deliveries")["data"]
    assert delivery["status"] == "held"
    done = [entry["action"] for entry in api.list_all("/v1/audit-log") if entry["actor"]["kind"] == "system"]
    assert done == ["endpoint.disabled", "endpoint.warned"]


def test_a_recovered_endpoint_sends_one_recovery_email(
    server_with_email: Server, mail_server: SmtpStub, receiver: Receiver
) -> None:
    server_with_email.environ |= {
        "UPLIFT_WARN_AFTER": "3s",
        "UPLIFT_DISABLE_AFTER": "5m",
        "UPLIFT_RETRY_SCHEDULE": ",".join(["300ms"] * 60),
        "UPLIFT_BREAKER_FAILURES": "0",
    }
    start(server_with_email, mail_server.port)
    _, api = server_with_email.account()
    receiver.url("/broken", respond(500))
    endpoint = api.endpoint(receiver.url("/broken"))["id"]
    api.send(1)
    wait_for(lambda: arrivals(mail_server) == [DATA], "the contact receives a warning")
    assert api.ok("GET", f"/v1/endpoints/{endpoint}")["health"]["disable_at"] is not None
    receiver.url("/broken", respond(204))
    wait_for(lambda: len(mail_server.received) == 2, "the contact receives the recovery email")
    assert mail_server.received[-1].message["Subject"] == f"Webhooks to 127.0.0.1:{receiver.port}/broken have recovered"
    health = api.ok("GET", f"/v1/endpoints/{endpoint}")["health"]
    assert (health["status"], health["warned_at"], health["disable_at"]) == ("healthy", None, None)


def test_the_database_does_not_reveal_an_invitation_link(server_with_email: Server, mail_server: SmtpStub) -> None:
    start(server_with_email, mail_server.port)
    account, _ = server_with_email.account()
    made = server_with_email.api().ok("POST", f"/v1/accounts/{account}/members", {"email": COACH, "role": "manager"})
    assert "url" not in made
    wait_for(lambda: sent(server_with_email.place) == [COACH], "the email is marked as sent")
    [mail] = mail_server.received
    plain = mail.message.get_body(("plain",))
    assert plain is not None
    [token] = re.findall(rf"^{server_with_email.url}/invitations/([\w-]+)\s*$", plain.get_content(), re.MULTILINE)
    assert server_with_email.stop() == 0
    contents = server_with_email.place.contents()
    assert token.encode() not in contents
