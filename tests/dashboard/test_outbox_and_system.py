"""The Email outbox and System pages for operators."""

import re
import time
from pathlib import Path

import sqlalchemy as sa
from playwright.sync_api import Page
from tests.dashboard.operators import sign_in_operator
from tests.dashboard.page_checks import check_page
from tests.dashboard.visitors import member, operator
from tests.e2e.harness import OPERATOR_KEY, Server, serving
from tests.mail.examples import example

from uplift_server import __version__
from uplift_server.core.ids import uuid7
from uplift_server.core.people.notifications import NotificationKind, with_endpoint
from uplift_server.store import outbox, schema_version
from uplift_server.store.outbox import EmailResult

NOW_MS = time.time_ns() // 1_000_000
ON_A_DISK, ON_POSTGRESQL = "free on the database", "dead rows and"
"""A part of the text of the database check, for SQLite and for PostgreSQL."""


def add_emails(server: Server, *recipients: str) -> None:
    """Add emails to the outbox: the first is sent, the second has failed, the third waits for a retry."""

    def add_and_settle(connection: sa.Connection) -> None:
        for number, recipient in enumerate(recipients):
            notice = (uuid7(NOW_MS, number.to_bytes(10, "big")), recipient)
            kind = NotificationKind.ENDPOINT_WARNED
            facts = {**example(kind).facts, "cause": "hush-hush"}
            for _ in range(6 * number):
                facts = with_endpoint(facts, {"url": "https://a.example/"})
            outbox.add(connection, kind, account_seq=1, endpoint_seq=None, recipients=[notice], facts=facts, now=NOW_MS)
        later = NOW_MS + 3_600_000
        results = [
            EmailResult(1, 1, sent_at=NOW_MS),
            EmailResult(2, 9, last_error="the mailbox <b>is</b> unknown"),
            EmailResult(3, 2, due_at=later, last_error="the mail server is busy"),
        ]
        outbox.settle(connection, results)

    server.place.run(add_and_settle)


def test_the_outbox_shows_the_status_of_each_email(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        server.account("Rapids <b>Academy</b>")
        add_emails(server, "sent@a.example", "given-up@a.example", "waiting@a.example")
        guest = operator(server)
        page = guest.get("/operator/mail")
        assert "Email is not configured" in page.text
        for text in ("sent@a.example", "given-up@a.example", "waiting@a.example", "the mailbox <b>is</b> unknown"):
            assert text in page.text
        assert "Rapids <b>Academy</b>" in page.text
        assert "<b>" not in page.html
        assert re.findall(r"(\d+) endpoints", page.text) == ["13", "7"]
        assert "hush-hush" not in page.html
        for state, recipient in (("waiting", "waiting"), ("sent", "sent"), ("given_up", "given-up")):
            found = guest.get(f"/operator/mail?state={state}")
            assert [each for each in ("waiting", "sent", "given-up") if f"{each}@a.example" in found.html] == [
                recipient
            ]


def test_the_system_page_shows_version_database_and_masked_settings(server: Server) -> None:
    page = operator(server).get("/operator/system")
    assert __version__ in page.text
    assert f"revision {schema_version.HEAD}" in page.text
    assert (str(server.place.file) if server.place.file else "PostgreSQL") in page.text
    assert "UPLIFT_RETRY_SCHEDULE" in page.text
    assert "300ms,300ms,300ms,300ms" in page.text
    assert OPERATOR_KEY not in page.html
    assert "•" * 8 in page.text


def test_the_checks_are_those_of_doctor(server: Server) -> None:
    page = operator(server).get("/operator/system/checks")
    assert page.status == 200
    for check in ("clock", "disk" if server.place.file else "durability", "held", "trust", "dns", "mail"):
        assert f'data-label="Check">{check}</th>' in page.html
    assert (ON_A_DISK if server.place.file else ON_POSTGRESQL) in page.text


def test_members_cannot_see_operator_pages(server: Server) -> None:
    account, _ = server.account()
    guest = member(server, account)
    for path in ("/operator/mail", "/operator/system", "/operator/system/checks"):
        page = guest.get(path)
        assert page.status == 404
        assert "UPLIFT_" not in page.html


def test_the_system_page_loads_its_checks(server: Server, page: Page) -> None:
    sign_in_operator(page).goto("/operator/system")
    # The page loads the results of the checks in a later request.
    page.get_by_text(ON_A_DISK if server.place.file else ON_POSTGRESQL).wait_for()
    check_page(page)
