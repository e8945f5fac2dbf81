"""A secret in the response of a receiver is masked everywhere, except where a page shows the whole body."""

from pathlib import Path
from typing import Any

import pytest
from tests.dashboard.visitors import member, operator
from tests.mail.smtp_server import SmtpStub

from .harness import Server, wait_for
from .listening import environment, uplift
from .receiving import Receiver, respond

SECRET = "s3cret-of-the-receiver"
URL = f"https://login.example/in?token={SECRET}#{SECRET}"
REDIRECT = respond(
    302,
    Location=URL,
    Link=f'<{URL}>; rel="next"',
    Refresh=f"0; url={URL}",
    Set_Cookie=f"session={SECRET}",
    X_Redirect_To=URL,
    Content_Security_Policy=f"report-uri {URL}",
)


@pytest.fixture
def warning(tmp_path: Path) -> Any:
    """A running server that warns about failing endpoints after 2 s, and its mail server."""
    mail_server = SmtpStub().open()
    server = Server(
        tmp_path,
        UPLIFT_MAIL_FROM="Uplift Webhooks <webhooks@uplift.example>",
        UPLIFT_SMTP_URL=f"smtp://127.0.0.1:{mail_server.port}",
        UPLIFT_WARN_AFTER="2s",
        UPLIFT_DISABLE_AFTER="1h",
        UPLIFT_RETRY_SCHEDULE=",".join(["300ms"] * 60),
        UPLIFT_BREAKER_FAILURES="0",
        UPLIFT_LOG_FORMAT="json",
    )
    yield server.start(), mail_server
    server.end()
    mail_server.close()


def test_a_secret_in_a_redirect_is_masked_everywhere(warning: tuple[Server, SmtpStub], receiver: Receiver) -> None:
    server, mail_server = warning
    account, api = server.account()
    endpoint = api.endpoint(receiver.url("/moved", REDIRECT))["id"]
    event = api.send(1).json["id"]
    wait_for(lambda: mail_server.received, "the contact receives a warning")
    [delivery] = [each["id"] for each in api.ok("GET", f"/v1/events/{event}/deliveries")["data"]]

    key = server.api().ok("POST", f"/v1/accounts/{account}/keys", {"name": "ana"})["key"]
    coach, fleet = member(server, account), operator(server)
    own = f"/accounts/{account}"
    shown = {
        path: str(api.ok("GET", path))
        for path in (
            f"/v1/endpoints/{endpoint}", "/v1/endpoints", f"/v1/deliveries/{delivery}",
            f"/v1/deliveries/{delivery}/attempts", f"/v1/events/{event}/explain", "/v1/audit-log",
        )
    }  # fmt: skip
    for guest, path in (
        (coach, f"{own}/overview"), (coach, f"{own}/endpoints"), (coach, f"{own}/endpoints/{endpoint}"),
        (coach, f"{own}/deliveries/{delivery}"), (coach, f"{own}/events/{event}"), (fleet, "/operator"),
        (fleet, "/operator/endpoints?filter=failing"),
    ):  # fmt: skip
        page = guest.get(path)
        assert page.status == 200, path
        shown[path] = page.html
    for arguments in (("endpoints", "list"), ("deliveries", "show", delivery)):
        done = uplift(environment(server, key), *arguments, "--json")
        assert done.returncode == 0, done.stderr
        shown[f"uplift {' '.join(arguments)}"] = done.stdout
    shown["email"] = "".join(each.text for each in mail_server.received)
    shown["log"] = "".join(server.log)
    columns = "last_error, last_location, url, description"
    shown["endpoint row"] = str(server.place.query(f"SELECT {columns} FROM endpoints"))
    for place in (f"{own}/endpoints/{endpoint}", "email", "endpoint row", f"/v1/endpoints/{endpoint}"):
        assert "https://login.example/in" in shown[place], place
    assert [place for place, text in shown.items() if SECRET in text] == []


REASON = "The signature is 400 seconds old. The limit is 300 seconds. Check the clock. [timestamp_too_old]"


def test_the_reason_in_a_response_is_shown_everywhere(warning: tuple[Server, SmtpStub], receiver: Receiver) -> None:
    server, mail_server = warning
    account, api = server.account()
    key = server.api().ok("POST", f"/v1/accounts/{account}/keys", {"name": "ana"})["key"]
    body = f"{REASON} <b>token={SECRET}9</b>\nsecond line".encode()
    endpoint = api.endpoint(receiver.url("/late", respond(401, body)))["id"]
    event = api.send(1).json["id"]
    wait_for(lambda: mail_server.received, "the contact receives a warning")
    [delivery] = [each["id"] for each in api.ok("GET", f"/v1/events/{event}/deliveries")["data"]]

    coach, own = member(server, account), f"/accounts/{account}"
    command = uplift(environment(server, key), "deliveries", "show", delivery)
    endpoint_command = uplift(environment(server, key), "endpoints", "show", endpoint)
    shown = {
        "health": str(api.ok("GET", f"/v1/endpoints/{endpoint}")["health"]),
        "endpoint page": coach.get(f"{own}/endpoints/{endpoint}").text,
        "delivery page": coach.get(f"{own}/deliveries/{delivery}").text,
        "email": " ".join(mail_server.received[0].text.split()),
        "uplift deliveries show": command.stdout,
        "uplift endpoints show": endpoint_command.stdout,
    }
    for place, text in shown.items():
        assert "Your server rejected the timestamp because it is too old." in text, place
        assert "Correct the clock of your server" in text, place
        assert "requires a login" not in text, place
        assert "The signature is 400 seconds old." in text, place
        assert "[timestamp_too_old] <b>token=********</b>" in text, place
        # Of these places, only the page of the delivery also shows the whole response.
        assert (SECRET in text) == (place == "delivery page"), place
    assert api.ok("GET", f"/v1/endpoints/{endpoint}")["health"]["cause"] == "timestamp_too_old"
    assert api.ok("GET", f"/v1/endpoints/{endpoint}")["health"]["last_error"] is None
    [attempt, *_] = api.ok("GET", f"/v1/deliveries/{delivery}/attempts")["data"]
    assert attempt["response"]["first_line"].startswith(REASON)
    assert attempt["hint"].startswith("Your server rejected the timestamp")
    server.stop()
    server.start()
    health = api.ok("GET", f"/v1/endpoints/{endpoint}")["health"]
    assert health["cause"] == "timestamp_too_old", "the cause is stored"
    assert health["last_response"].startswith(REASON)
