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
from .receiving import Receiver, answer

COACH, DATA = "coach@rapids.example", "data@rapids.example"
LOOKS_S = 5
"""Long enough for several rounds of the outbox."""


@pytest.fixture
def postbox() -> Iterator[SmtpStub]:
    """A running mail server."""
    postbox = SmtpStub().open()
    yield postbox
    postbox.close()


@pytest.fixture
def mailing(tmp_path: Path) -> Iterator[Server]:
    """A server with email settings that is not started yet."""
    server = Server(tmp_path, UPLIFT_MAIL_FROM="Uplift Webhooks <webhooks@uplift.example>")
    yield server
    server.end()


def start(server: Server, port: int) -> None:
    server.environ["UPLIFT_SMTP_URL"] = f"smtp://127.0.0.1:{port}"
    server.start()


def owe(place: Place, *recipients: str) -> None:
    """Store what a transition stores."""
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


def arrivals(postbox: SmtpStub) -> list[str]:
    return sorted(each.recipient for each in postbox.received)


def messages(postbox: SmtpStub) -> list[str]:
    """Return the recipients of each message.

    A message is repeated after a kill if the mail server accepted it before the sender knew (RFC 1047). The copies are
    identical, and mail programs show one.
    """
    by_id: dict[tuple[str, str], set[bytes]] = {}
    for each in postbox.received:
        by_id.setdefault((each.recipient, each.message["Message-ID"]), set()).add(each.content)
    assert all(len(contents) == 1 for contents in by_id.values())
    return sorted(recipient for recipient, _ in by_id)


def test_a_kill_before_sending_still_sends_one_email_per_contact(
    mailing: Server, postbox: SmtpStub, receiver: Receiver
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(20)
        start(mailing, silent.getsockname()[1])
        owe(mailing.place, COACH, DATA)
        connected, _ = silent.accept()
        # The mail server does not respond, and everything else continues.
        _, api = mailing.account()
        api.endpoint(receiver.url("/x"))
        event = api.send(1).json["id"]
        (delivery,) = api.ok("GET", f"/v1/events/{event}/deliveries")["data"]
        assert settled(api, delivery["id"], 5)["status"] == "delivered"
        mailing.kill()
        connected.close()
    start(mailing, postbox.port)
    wait_for(lambda: sent(mailing.place) == [COACH, DATA], "both are marked as sent")
    time.sleep(LOOKS_S)
    assert arrivals(postbox) == [COACH, DATA]
    assert len({each.message["Message-ID"] for each in postbox.received}) == 2
    assert mailing.stop() == 0
    mailing.start()
    time.sleep(LOOKS_S)
    assert arrivals(postbox) == [COACH, DATA]


def test_a_kill_after_sending_repeats_the_same_message(mailing: Server, postbox: SmtpStub) -> None:
    postbox.hold_answer = True
    start(mailing, postbox.port)
    owe(mailing.place, COACH, DATA)
    wait_for(lambda: postbox.received, "the mail server took one")
    mailing.kill()
    postbox.hold_answer = False
    mailing.start()
    wait_for(lambda: sent(mailing.place) == [COACH, DATA], "both are marked as sent")
    assert arrivals(postbox) == [COACH, COACH, DATA]
    first, again = (each.content for each in postbox.received if each.recipient == COACH)
    assert first == again


def test_a_stop_does_not_wait_for_a_hanging_mail_server(mailing: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(20)
        start(mailing, silent.getsockname()[1])
        owe(mailing.place, COACH)
        connected, _ = silent.accept()
        began = time.monotonic()
        assert mailing.stop() == 0, mailing.log
        assert time.monotonic() - began < 10
        connected.close()
    assert not any("Traceback" in line for line in mailing.log), mailing.log
    assert sent(mailing.place) == []


def test_an_email_in_progress_at_a_stop_is_sent_once(tmp_path: Path, postgres_url: str, postbox: SmtpStub) -> None:
    place = PostgresPlace(postgres_url, postgres_url)
    owner = "SELECT process_seq FROM duties WHERE name = 'outbox'"
    mail = {"UPLIFT_MAIL_FROM": "webhooks@uplift.example", "UPLIFT_SMTP_URL": f"smtp://127.0.0.1:{postbox.port}"}
    with Fleet(tmp_path, postgres_url, **mail) as fleet:
        first = fleet.add("worker")
        wait_for(lambda: place.query(owner), "the outbox is the first one's")
        fleet.add("worker")
        whose = place.query(owner)
        postbox.hang_at = "DATA"
        owe(place, COACH)
        wait_for(lambda: postbox.hangs, "a mail is under way")
        postbox.hang_at = None
        first.terminate()
        # The endpoint has a second one.
        time.sleep(0.3)
        assert place.query(owner) == whose
        postbox.go_on()
        assert first.process is not None
        assert first.process.wait(25) == 0
        wait_for(lambda: place.query(owner) not in ([(0,)], whose), "the outbox is the other one's")
        time.sleep(LOOKS_S)
        assert arrivals(postbox) == sent(place) == [COACH]


def state_of(api: Api, endpoint: str) -> str:
    return str(api.ok("GET", f"/v1/endpoints/{endpoint}")["state"])


def test_warning_and_disable_emails_survive_kills(mailing: Server, postbox: SmtpStub, receiver: Receiver) -> None:
    """The complete lifecycle in seconds instead of days. Enabling the endpoint releases its held deliveries."""
    mailing.environ |= {
        "UPLIFT_WARN_AFTER": "4s",
        "UPLIFT_DISABLE_AFTER": "10s",
        "UPLIFT_RETRY_SCHEDULE": ",".join(["300ms"] * 60),
        "UPLIFT_BREAKER_FAILURES": "0",
    }
    start(mailing, postbox.port)
    account, api = mailing.account()
    mailing.api().ok("PATCH", f"/v1/accounts/{account}", {"contact_emails": [COACH, DATA]})
    receiver.url("/broken", answer(500))
    endpoint = api.endpoint(receiver.url("/broken"))["id"]
    event = api.send(1).json["id"]
    wait_for(lambda: messages(postbox) == [COACH, DATA], "both contacts are warned")
    mailing.kill()
    mailing.start()
    host = f"127.0.0.1:{receiver.port}"
    subjects = [each.message["Subject"] for each in postbox.received]
    assert all(subject.startswith(f"Webhooks to {host}/broken are failing") for subject in subjects)
    assert endpoint in postbox.received[0].text
    wait_for(lambda: state_of(api, endpoint) == "disabled", "it is disabled")
    mailing.kill()
    mailing.start()
    wait_for(lambda: len(sent(mailing.place)) == 4, "all mails are marked as sent")
    time.sleep(LOOKS_S)
    assert messages(postbox) == [COACH, COACH, DATA, DATA]
    assert postbox.received[-1].message["Subject"] == f"Webhooks to {host}/broken are disabled"
    (delivery,) = api.ok("GET", f"/v1/events/{event}/deliveries")["data"]
    assert delivery["status"] == "held"
    done = [entry["action"] for entry in api.everything("/v1/audit-log") if entry["actor"]["kind"] == "system"]
    assert done == ["endpoint.disabled", "endpoint.warned"]


def test_a_recovered_endpoint_sends_one_recovery_email(mailing: Server, postbox: SmtpStub, receiver: Receiver) -> None:
    mailing.environ |= {
        "UPLIFT_WARN_AFTER": "3s",
        "UPLIFT_DISABLE_AFTER": "5m",
        "UPLIFT_RETRY_SCHEDULE": ",".join(["300ms"] * 60),
        "UPLIFT_BREAKER_FAILURES": "0",
    }
    start(mailing, postbox.port)
    _, api = mailing.account()
    receiver.url("/broken", answer(500))
    endpoint = api.endpoint(receiver.url("/broken"))["id"]
    api.send(1)
    wait_for(lambda: arrivals(postbox) == [DATA], "the contact is warned")
    assert api.ok("GET", f"/v1/endpoints/{endpoint}")["health"]["disable_at"] is not None
    receiver.url("/broken", answer(204))
    wait_for(lambda: len(postbox.received) == 2, "the recovery is told")
    assert postbox.received[-1].message["Subject"] == f"Webhooks to 127.0.0.1:{receiver.port}/broken have recovered"
    health = api.ok("GET", f"/v1/endpoints/{endpoint}")["health"]
    assert (health["status"], health["warned_at"], health["disable_at"]) == ("healthy", None, None)


def test_the_database_does_not_reveal_an_invitation_link(mailing: Server, postbox: SmtpStub) -> None:
    start(mailing, postbox.port)
    account, _ = mailing.account()
    made = mailing.api().ok("POST", f"/v1/accounts/{account}/members", {"email": COACH, "role": "manager"})
    assert "url" not in made
    wait_for(lambda: sent(mailing.place) == [COACH], "it is marked as sent")
    [mail] = postbox.received
    plain = mail.message.get_body(("plain",))
    assert plain is not None
    [token] = re.findall(rf"^{mailing.url}/invitations/([\w-]+)\s*$", plain.get_content(), re.MULTILINE)
    assert mailing.stop() == 0
    contents = mailing.place.contents()
    assert token.encode() not in contents
