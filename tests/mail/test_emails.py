"""Text of each notification: endpoint, time, cause, consequence, steps and link."""

from dataclasses import replace
from typing import Any

import pytest
from tests.mail.examples import AT, DAY, ENDPOINT_ID, LINK_KEY, PUBLIC_URL, example

from uplift_server.core.people.notifications import FACTS, NotificationKind
from uplift_server.core.security.tokens import Purpose, is_valid_reset_token, parse_reset_token, token
from uplift_server.mail.emails import Email, compose_email, compose_test_email
from uplift_server.mail.messages import html, plain

ABOUT_ENDPOINTS = [
    NotificationKind.ENDPOINT_WARNED,
    NotificationKind.ENDPOINT_DISABLED,
    NotificationKind.ENDPOINT_RECOVERED,
    NotificationKind.CERTIFICATE_EXPIRING,
]
TEXTS = {"url", "description", "account", "cause", "remedy", "response", "role", "invited_by"}
UNSAFE = '<script>alert("x")</script> & \r\nBcc: all@evil.example\u202e\u2028\x00'


def wording(kind: NotificationKind, **changed: object) -> Email:
    return compose_email(example(kind, **changed), PUBLIC_URL, LINK_KEY)


def line(text: str) -> str:
    """Return a text without its line breaks."""
    return " ".join(text.split())


def bodies(email: Email) -> tuple[str, str]:
    """Return the plain body, and the visible text of the HTML body."""
    found = html(email).partition("<body")[2]
    return line(plain(email)), line(found.replace("&#39;", "'"))


@pytest.mark.parametrize("kind", ABOUT_ENDPOINTS)
def test_emails_name_the_endpoint_and_link_to_it(kind: NotificationKind) -> None:
    email = wording(kind)
    assert "hooks.rapids.example:8443" in email.subject
    for body in bodies(email):
        for phrase in (
            "hooks.rapids.example:8443",
            ENDPOINT_ID,
            "https://hooks.rapids.example:8443/uplift/captures",
            "Captures of the U17 squad",
            "Rapids Academy",
            f"https://hooks.uplift.example/endpoints/{ENDPOINT_ID}",
            "Next steps",
        ):
            assert phrase in body


def test_a_warning_has_time_cause_consequence_and_steps() -> None:
    email = wording(NotificationKind.ENDPOINT_WARNED)
    assert "disabled on November 26, 2025" in email.subject
    assert "16:00" not in email.subject
    for body in bodies(email):
        for phrase in (
            "November 21, 2025 at 16:00 UTC",
            "1,234 attempts",
            "Your server responded with 302, a redirect to https://login.example/in",
            "URL to that address if it is yours",
            "On November 26, 2025 at 16:00 UTC, Uplift Webhooks will disable the endpoint",
            "Uplift Webhooks holds deliveries to a disabled endpoint",
        ):
            assert phrase in body


@pytest.mark.parametrize("kind", [NotificationKind.ENDPOINT_WARNED, NotificationKind.ENDPOINT_DISABLED])
def test_the_response_is_quoted_without_links(kind: NotificationKind) -> None:
    """The receiver controls this text, which could contain phishing links."""
    hostile = "Your account is locked: HTTPS://evil.example/unlock, hxxp:/evil.example or www.evil.example/unlock"
    for email in (wording(kind, response=hostile), together(kind, 2, response=hostile)):
        for body in bodies(email):
            assert "“Your account is locked: [URL] [URL] or [URL]”" in body
            assert "evil.example" not in body
    for body in bodies(wording(kind, response="")):
        assert "Response" not in body


def test_a_warning_without_disable_time_and_cause() -> None:
    email = wording(NotificationKind.ENDPOINT_WARNED, disable_at=None, cause="", remedy="", failing_since=None)
    text = line(plain(email))
    assert "disabled" not in email.subject
    assert "Uplift Webhooks will disable the endpoint unless a delivery succeeds" in text
    assert "Last error" not in text
    assert "Will be disabled" not in text
    assert not any(not step for step in email.steps)
    assert all(value for _, value in email.details)


def test_a_disabled_endpoint_has_a_reason_and_steps() -> None:
    for body in bodies(wording(NotificationKind.ENDPOINT_DISABLED)):
        for phrase in (
            "since November 19, 2025 at 16:00 UTC",
            "99 attempts",
            "redirects are not followed",
            "URL to that address if it is yours",
            "holds pending and new deliveries",
            "Enable the endpoint, and choose whether to send, keep or drop the held deliveries",
        ):
            assert phrase in body
    assert "410 Gone" in plain(wording(NotificationKind.ENDPOINT_DISABLED, reason="gone"))
    by_hand = line(plain(wording(NotificationKind.ENDPOINT_DISABLED, reason="operator", cause="", remedy="")))
    assert "An operator of Uplift Webhooks disabled your endpoint" in by_hand
    assert "Ask the operator before" in by_hand


def test_a_recovery_has_both_times_and_no_steps() -> None:
    for body in bodies(wording(NotificationKind.ENDPOINT_RECOVERED)):
        for phrase in (
            "on November 24, 2025 at 16:00 UTC",
            "since November 20, 2025 at 16:00 UTC",
            "Uplift Webhooks will not disable the endpoint",
            "You do not need to do anything",
        ):
            assert phrase in body
    assert "A delivery to your endpoint succeeded." in plain(
        wording(NotificationKind.ENDPOINT_RECOVERED, failed_since=None, recovered_at=None)
    )


def test_a_mass_failure_has_counts_and_causes() -> None:
    email = wording(NotificationKind.MASS_FAILURE_BEGAN)
    assert "412 of 500 endpoints" in email.subject
    for body in bodies(email):
        for phrase in (
            "412 endpoints",
            "November 24, 2025 at 16:00 UTC",
            "does not warn about or disable endpoints",
            "uplift-server doctor",
        ):
            assert phrase in body
        # The most frequent cause comes first.
        causes = "400 \N{MULTIPLICATION SIGN} Connection refused, 12 \N{MULTIPLICATION SIGN} Timeout"
        assert f"since November 24, 2025 at 16:00 UTC: {causes}." in body
    assert plain(wording(NotificationKind.MASS_FAILURE_BEGAN, causes={}, since=None))


def test_the_end_of_a_mass_failure_has_times_and_counts() -> None:
    for body in bodies(wording(NotificationKind.MASS_FAILURE_ENDED)):
        for phrase in (
            "November 24, 2025 at 16:00 UTC",
            "November 24, 2025 at 18:00 UTC",
            "1 endpoint is still failing",
        ):
            assert phrase in body


@pytest.mark.parametrize("kind", NotificationKind)
def test_missing_values_do_not_prevent_an_email(kind: NotificationKind) -> None:
    email = wording(kind, **dict.fromkeys(FACTS[kind]))
    assert "None" not in plain(email) + html(email)
    assert email.subject


@pytest.mark.parametrize("kind", NotificationKind)
def test_emails_contain_no_secrets(kind: NotificationKind) -> None:
    email = wording(kind)
    for body in (email.subject, plain(email), html(email)):
        assert "geheim" not in body
        assert "pw@" not in body


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:word@a.example/x", "https://a.example/x"),
        ("https://a.example/x?key=1&b=2", "https://a.example/x?…"),
        ("https://a.example?key", "https://a.example?…"),
        ("https://a.example/#part", "https://a.example/?…"),
        ("https://[2001:db8::1]:8443/x", "https://[2001:db8::1]:8443/x"),
        ("https://bücher.example/ä", "https://bücher.example/ä"),
    ],
)
def test_a_url_is_shown_without_secrets(url: str, shown: str) -> None:
    assert ("URL", shown) in wording(NotificationKind.ENDPOINT_WARNED, url=url).details


def test_invalid_and_long_urls_are_shown() -> None:
    assert "unknown host" in wording(NotificationKind.ENDPOINT_WARNED, url="https://[").subject
    long = wording(NotificationKind.ENDPOINT_WARNED, url=f"https://{'a' * 300}.example/{'b' * 2000}")
    assert len(long.subject) < 200
    assert max(len(value) for _, value in long.details) <= 300


ENDPOINT_KINDS = (
    NotificationKind.ENDPOINT_WARNED,
    NotificationKind.ENDPOINT_DISABLED,
    NotificationKind.ENDPOINT_RECOVERED,
    NotificationKind.CERTIFICATE_EXPIRING,
)


@pytest.mark.parametrize("kind", ENDPOINT_KINDS)
def test_endpoints_of_one_host_have_different_subjects(kind: NotificationKind) -> None:
    one, other = (wording(kind, url=f"https://a.example/{path}", description=None) for path in ("runs", "rides"))
    assert " a.example/runs " in one.subject
    assert " a.example/rides " in other.subject
    assert "a.example/runs" in one.title
    described = wording(kind, url="https://a.example/", description="Test\r\nBcc: x@y.example")
    assert " a.example (Test Bcc: x@y.example) " in described.subject
    assert "a.example (Test" in described.title


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/hooks/T024BE7LD1234567890/B1?sig=geheim", "/hooks/…/B1"),
        ("/hooks/0197f0c2-5b1e-7c3a-9d5e-2f6a8b0c4d1e", "/hooks/…"),
        (f"/hooks/{'k' * 32}", "/hooks/…"),
        ("/in;code=1/token=2/u:p@x/", "/…/…/…"),
        ("/uplift/performance-captures/", "/uplift/performance-captures"),
        ("/one/two/three/four/five/six/seven/eight/nine/ten", "/one/two/three/four/…even/eight/nine/ten"),
    ],
)
def test_the_path_in_a_subject_is_short_and_has_no_tokens(path: str, shown: str) -> None:
    subject = wording(NotificationKind.ENDPOINT_DISABLED, url=f"https://a.example{path}", description=None).subject
    found = subject.removeprefix("Webhooks to a.example").removesuffix(" are disabled")
    assert found == shown
    assert len(found) <= 40


def test_a_long_description_is_truncated_in_the_subject() -> None:
    long = wording(NotificationKind.ENDPOINT_WARNED, url="https://a.example/x", description="d" * 500)
    assert len(long.subject) < 200
    assert "ddd…)" in long.subject
    with_long_url = wording(
        NotificationKind.ENDPOINT_WARNED, url=f"https://{'a' * 90}.example/{'b/' * 40}", description="d" * 500
    )
    assert "(d" not in with_long_url.subject


def test_an_invitation_has_sender_account_expiry_and_link() -> None:
    email = wording(NotificationKind.MEMBER_INVITED)
    assert "Rapids Academy" in email.subject
    invitation = token(LINK_KEY, Purpose.INVITATION, bytes(range(16)))
    assert email.link[1] == f"{PUBLIC_URL}/invitations/{invitation}"
    for body in bodies(email):
        for phrase in (
            "ann@rapids.example",
            "Rapids Academy with the role manager",
            "December 1, 2025 at 16:00 UTC",
            f"/invitations/{invitation}",
            PUBLIC_URL,
        ):
            assert phrase in body


def test_a_password_reset_links_to_the_form() -> None:
    email = wording(NotificationKind.PASSWORD_RESET)
    made = email.link[1].removeprefix(f"{PUBLIC_URL}/passwords/")
    assert is_valid_reset_token(LINK_KEY, made, "ab" * 32)
    assert parse_reset_token(made) == (bytes(range(16)), AT + 3_600_000)
    for body in bodies(email):
        for phrase in ("November 24, 2025 at 17:00 UTC", "works until you set a new one", "works once", made):
            assert phrase in body


@pytest.mark.parametrize(
    ("change", "consequence"),
    [
        ("turned_on", "also requires a code"),
        ("turned_off", "Your password alone is now sufficient"),
        ("reset", "An operator turned off"),
        ("recovery_code_used", "one of your recovery codes"),
    ],
)
def test_a_change_of_the_second_factor_says_what_to_do_if_it_is_not_expected(change: str, consequence: str) -> None:
    email = wording(NotificationKind.SECOND_FACTOR_CHANGED, change=change)
    assert email.link[1] == f"{PUBLIC_URL}/you"
    for body in bodies(email):
        for phrase in (consequence, "change your password now", "November 24, 2025 at 16:00 UTC"):
            assert phrase in body


@pytest.mark.parametrize("kind", NotificationKind)
def test_user_texts_are_escaped(kind: NotificationKind) -> None:
    texts = {name: UNSAFE for name in FACTS[kind] if name in TEXTS}
    email = wording(kind, **texts)
    assert "<script" not in html(email)
    everything = [email.subject, email.title, *email.opening, *email.steps, email.closing]
    for text in [*everything, *(part for row in email.details for part in row)]:
        assert text.isprintable()


def test_causes_are_escaped() -> None:
    email = wording(NotificationKind.MASS_FAILURE_BEGAN, causes={"<b>\n": 3, "Timeout": "many"})
    assert "<b>" not in html(email)
    assert ("Causes", "3 \N{MULTIPLICATION SIGN} <b>") in email.details
    assert "Timeout" not in plain(email)


@pytest.mark.parametrize("kind", NotificationKind)
def test_the_html_has_no_external_resources(kind: NotificationKind) -> None:
    email = wording(kind)
    page = html(email)
    assert page.count("href=") == 1
    assert f'href="{email.link[1]}"' in page
    assert not any(each in page for each in ("src=", "url(", "@import", "<script", "<link"))


def test_a_test_email_identifies_itself() -> None:
    assert "An operator sent this email" in line(plain(compose_test_email(PUBLIC_URL)))


def test_times_include_the_date() -> None:
    text = plain(wording(NotificationKind.ENDPOINT_RECOVERED, failed_since=AT - 365 * DAY, recovered_at=0))
    assert "November 24, 2024" in line(text)
    assert "January 1, 1970 at 00:00 UTC" in line(text)


def together(kind: NotificationKind, count: int, **changed: Any) -> Email:
    """Return the email about several endpoints."""
    first = example(kind)
    others = [{**first.facts, "url": f"https://h{n}.example/hook?token=geheim", **changed} for n in range(1, count)]
    facts = {**first.facts, "others": others[:200], "more": len(others[200:])}
    return compose_email(replace(first, facts=facts), PUBLIC_URL, LINK_KEY)


@pytest.mark.parametrize("kind", ABOUT_ENDPOINTS)
def test_an_email_about_several_endpoints_lists_each(kind: NotificationKind) -> None:
    email = together(kind, 7)
    assert "7 endpoints" in email.subject
    assert "7 endpoints of Rapids Academy" in email.title
    assert len(email.details) == 7
    assert email.details[1][0] == "https://h1.example/hook?…"
    assert any(words in email.details[1][1] for words in ("ailing since November", "expires December"))
    assert "geheim" not in str(email)


@pytest.mark.parametrize("kind", ABOUT_ENDPOINTS)
def test_a_long_list_of_endpoints_is_truncated(kind: NotificationKind) -> None:
    email = together(kind, 300)
    assert "300 endpoints" in email.subject
    assert len(email.details) == 51
    assert email.details[-1][1] == "250"


def test_causes_and_fixes_are_listed_once() -> None:
    email = together(
        NotificationKind.ENDPOINT_WARNED, 7, cause="The connection was refused.", remedy="Start your server."
    )
    assert email.opening[0] == "6 endpoints: The connection was refused."
    assert email.opening[1].startswith("1 endpoint: Your server responded with 302")
    assert email.steps[0] == "Start your server."
    assert [step for step in email.steps if step == "Start your server."] == ["Start your server."]
    assert "the first will be disabled on November 26" in email.subject


def test_the_earliest_scheduled_disable_is_named() -> None:
    email = together(NotificationKind.ENDPOINT_WARNED, 3, disable_at=AT + DAY)
    assert "the first will be disabled on November 25" in email.subject


def test_an_expiring_certificate_has_a_time_and_steps() -> None:
    email = wording(NotificationKind.CERTIFICATE_EXPIRING)
    assert "expires on December 24, 2025" in email.subject
    for body in bodies(email):
        assert "expires on December 24, 2025 at 16:00 UTC" in body
        assert "replace the certificate and its private key" in body
    several = together(NotificationKind.CERTIFICATE_EXPIRING, 3, expires_at=AT + 7 * DAY)
    assert "3 endpoints begin to expire on December 1, 2025" in several.subject
    assert "The first expires on December 1, 2025 at 16:00 UTC" in plain(several).replace("\n", " ")
