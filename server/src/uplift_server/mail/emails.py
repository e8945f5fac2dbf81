"""The email text for each kind of notification.

The plain text and HTML versions of an email contain the same text. No email contains a request body. An email can
contain the first line of a response body, with masked URLs. Only invitations and password resets contain links with
tokens.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from uplift_server.core.people.notifications import Notification, NotificationKind, SecondFactorChange
from uplift_server.mail.email_values import EmailValues, counted, format_time


@dataclass(frozen=True, slots=True)
class Email:
    """The text of an email. Every string is one printable line without HTML."""

    subject: str
    title: str
    opening: tuple[str, ...]
    """The opening paragraphs: the problem or change that the email reports, and its consequences."""
    details: tuple[tuple[str, str], ...]
    """The detail rows, each with a label and a value."""
    steps: tuple[str, ...]
    """The steps that the reader can take to fix the problem."""
    link: tuple[str, str]
    """The label and URL of the main link."""
    closing: str
    """The closing line. It states why the reader receives the email."""


def compose_email(notification: Notification, public_url: str, link_key: bytes) -> Email:
    """Return the email for a notification.

    `public_url` is the URL of this server, without a trailing slash. `link_key` is the key from which the secret parts
    of links are derived.
    """
    return _WORDING[notification.kind](EmailValues(notification.facts, public_url, link_key))


def compose_test_email(public_url: str) -> Email:
    """Return the email that an operator sends to test the mail server."""
    return Email(
        subject="Test email from Uplift Webhooks",
        title="Your email configuration works",
        opening=("An operator sent this email to test the server's email configuration.",),
        details=(("Server", public_url),),
        steps=("You do not need to do anything.",),
        link=("Open dashboard", public_url),
        closing="You received this email because an operator of Uplift Webhooks sent a test email to your address.",
    )


CAUSES_SHOWN_MAX: Final = 3
ENDPOINTS_SHOWN_MAX: Final = 50
_OPERATOR_CLOSING: Final = (
    "You received this email because UPLIFT_OPERATOR_EMAIL on this server is set to your address."
)


def _warned(values: EmailValues) -> Email:
    if values.endpoint_count > 1:
        return _warned_together(values)
    disabled_at = values.time("disable_at")
    since = values.time("failing_since")
    subject = f"Webhooks to {values.name} are failing"
    consequence = "Uplift Webhooks will disable the endpoint unless a delivery succeeds."
    if disabled_at:
        subject += f" and will be disabled on {disabled_at.partition(' at ')[0]}"
        consequence = f"On {disabled_at}, Uplift Webhooks will disable the endpoint unless a delivery succeeds."
    return Email(
        subject=subject,
        title=f"{values.name} is failing",
        opening=(
            (
                f"Your endpoint has been failing {_since(since)}: "
                f"{counted(values.number('failed_attempts'), 'attempt')} failed, and none succeeded."
            ),
            *_last_error(values),
            (f"{consequence} Uplift Webhooks holds deliveries to a disabled endpoint until you enable the endpoint."),
        ),
        details=values.endpoint_details(
            ("Failing since", since),
            ("Failed attempts", f"{values.number('failed_attempts'):,}"),
            ("Will be disabled", disabled_at),
            ("Response", values.response),
        ),
        steps=(
            *_how_to_fix(values),
            "Send a test event from the endpoint's page to check your server. Test events do not end the warning.",
            "The first successful delivery ends the warning. You will then receive another email.",
        ),
        link=values.endpoint_link,
        closing=values.contact_closing,
    )


def _disabled(values: EmailValues) -> Email:
    if values.endpoint_count > 1:
        return _disabled_together(values)
    since = values.time("failing_since")
    failed = values.number("failed_attempts")
    by_reason = {
        "failing": f"Uplift Webhooks disabled your endpoint. It had been failing {_since(since)}: "
        f"{counted(failed, 'attempt')} failed, and none succeeded.",
        "gone": "Uplift Webhooks disabled your endpoint because your server responded with 410 Gone.",
        "operator": "An operator of Uplift Webhooks disabled your endpoint.",
    }
    reason = values.text("reason")
    return Email(
        subject=f"Webhooks to {values.name} are disabled",
        title=f"{values.name} is disabled",
        opening=(
            by_reason.get(reason, "Your endpoint is disabled."),
            *_last_error(values),
            "Uplift Webhooks holds pending and new deliveries until you enable the endpoint.",
        ),
        details=values.endpoint_details(
            ("Failing since", since),
            ("Failed attempts", f"{failed:,}" if failed else ""),
            ("Response", values.response),
        ),
        steps=(
            *_how_to_fix(values),
            *(("Ask the operator before you enable the endpoint.",) if reason == "operator" else ()),
            "Send a test event from the endpoint's page. Disabled endpoints also receive test events.",
            (
                "Enable the endpoint, and choose whether to send, keep or drop the held deliveries. If you no longer "
                "need the endpoint, delete it."
            ),
        ),
        link=values.endpoint_link,
        closing=values.contact_closing,
    )


def _recovered(values: EmailValues) -> Email:
    if values.endpoint_count > 1:
        return _recovered_together(values)
    since, at = values.time("failed_since"), values.time("recovered_at")
    return Email(
        subject=f"Webhooks to {values.name} have recovered",
        title=f"{values.name} has recovered",
        opening=(
            (
                f"A delivery to your endpoint succeeded{_after(' on ', at)}. "
                f"The endpoint had been failing {_since(since)}."
            ),
            (
                "The warning has ended, and Uplift Webhooks will not disable the endpoint. Pending deliveries follow "
                "their retry schedule."
            ),
        ),
        details=values.endpoint_details(("Failing since", since), ("Recovered on", at)),
        steps=(
            "You do not need to do anything for pending deliveries.",
            "To resend failed deliveries, replay them from the endpoint's page.",
        ),
        link=values.endpoint_link,
        closing=values.contact_closing,
    )


def _warned_together(values: EmailValues) -> Email:
    dates = [each.number("disable_at") for each in values.endpoints if each.number("disable_at")]
    first = format_time(min(dates)) if dates else ""
    subject = f"Webhooks to {counted(values.endpoint_count, 'endpoint')} are failing"
    consequence = "Uplift Webhooks will disable each endpoint unless a delivery to it succeeds."
    if first:
        subject += f", and the first will be disabled on {first.partition(' at ')[0]}"
        consequence = (
            f"Starting on {first}, Uplift Webhooks will disable each endpoint unless a delivery to it succeeds."
        )
    return Email(
        subject=subject,
        title=f"{_endpoints_of_account(values)} are failing",
        opening=(
            *_causes(values),
            f"{consequence} Uplift Webhooks holds deliveries to a disabled endpoint until you enable the endpoint.",
        ),
        details=_endpoint_rows(values, ("failing since", "failing_since"), ("will be disabled on", "disable_at")),
        steps=(
            *_how_to_fix_all(values),
            "Send a test event from an endpoint's page to check your server. Test events do not end the warning.",
            "The first successful delivery to an endpoint ends its warning. You will then receive another email.",
        ),
        link=values.home_link,
        closing=values.contact_closing,
    )


def _disabled_together(values: EmailValues) -> Email:
    return Email(
        subject=f"Webhooks to {counted(values.endpoint_count, 'endpoint')} are disabled",
        title=f"{_endpoints_of_account(values)} are disabled",
        opening=(
            (
                "Uplift Webhooks disabled the endpoints because they had been failing for too long or responded with "
                "410 Gone."
            ),
            *_causes(values),
            "Uplift Webhooks holds pending and new deliveries until you enable the endpoints.",
        ),
        details=_endpoint_rows(values, ("failing since", "failing_since")),
        steps=(
            *_how_to_fix_all(values),
            "Send a test event from each endpoint's page. Disabled endpoints also receive test events.",
            (
                "Enable each endpoint, and choose whether to send, keep or drop its held deliveries. If you no longer "
                "need an endpoint, delete it."
            ),
        ),
        link=values.home_link,
        closing=values.contact_closing,
    )


def _recovered_together(values: EmailValues) -> Email:
    return Email(
        subject=f"Webhooks to {counted(values.endpoint_count, 'endpoint')} have recovered",
        title=f"{_endpoints_of_account(values)} have recovered",
        opening=(
            "A delivery to each of these endpoints succeeded.",
            (
                "The warnings have ended, and Uplift Webhooks will not disable the endpoints. Pending deliveries "
                "follow their retry schedule."
            ),
        ),
        details=_endpoint_rows(values, ("failing since", "failed_since"), ("recovered on", "recovered_at")),
        steps=(
            "You do not need to do anything for pending deliveries.",
            "To resend failed deliveries, replay them from the page of each endpoint.",
        ),
        link=values.home_link,
        closing=values.contact_closing,
    )


def _mass_failure_began(values: EmailValues) -> Email:
    failing, attempted = values.number("endpoints"), values.number("attempted")
    since = values.time("since")
    return Email(
        subject=f"Mass failure: {failing:,} of {attempted:,} endpoints failing{_after(' since ', since)}",
        title="Many endpoints are failing at once",
        opening=(
            (
                f"{failing:,} of {counted(attempted, 'endpoint')} with attempts in the last 24 hours have been failing"
                f"{_after(' since ', since)}{_after(': ', values.causes)}."
            ),
            (
                "The endpoints began to fail within the same hour, so the cause is probably in the network or "
                "configuration of this server."
            ),
            (
                "The server does not warn about or disable endpoints until the mass failure ends. The duration of the "
                "mass failure does not count toward UPLIFT_WARN_AFTER or UPLIFT_DISABLE_AFTER. Retries continue. You "
                "will receive another email when the mass failure ends."
            ),
        ),
        details=(
            *_rows(("Since", since)),
            ("Failing", counted(failing, "endpoint")),
            ("Active in the last 24 hours", counted(attempted, "endpoint")),
            *_rows(("Causes", values.causes)),
        ),
        steps=(
            "Run uplift-server doctor on the server. It checks DNS, outbound connections and trusted certificates.",
            ("If the causes suggest a network problem, check the firewall, the egress proxy and the network provider."),
            "Run uplift-server deliveries to see the errors of individual deliveries.",
        ),
        link=values.home_link,
        closing=_OPERATOR_CLOSING,
    )


def _mass_failure_ended(values: EmailValues) -> Email:
    still = values.number("still_failing")
    since, ended_at = values.time("since"), values.time("ended_at")
    return Email(
        subject="The mass failure has ended",
        title="The mass failure has ended",
        opening=(
            (
                f"The mass failure ended{_after(' on ', ended_at)}. It affected "
                f"{counted(values.number('endpoints'), 'endpoint')}. {counted(still, 'endpoint')} "
                f"{'is' if still == 1 else 'are'} still failing."
            ),
            (
                "The server resumes warnings about failing endpoints, and disables endpoints that do not recover. "
                "The duration of the mass failure does not count toward UPLIFT_WARN_AFTER or UPLIFT_DISABLE_AFTER."
            ),
        ),
        details=_rows(
            ("Began", since),
            ("Ended", ended_at),
            ("Affected", counted(values.number("endpoints"), "endpoint")),
            ("Still failing", counted(still, "endpoint")),
        ),
        steps=("If you do not know the cause yet, check the failed attempts from the time of the mass failure.",),
        link=values.home_link,
        closing=_OPERATOR_CLOSING,
    )


def _member_invited(values: EmailValues) -> Email:
    account, until = values.text("account"), values.time("expires_at")
    return Email(
        subject=f"Invitation to {account} on Uplift Webhooks",
        title=f"Join {account}",
        opening=(
            f"{values.text('invited_by')} invited you to the account {account} with the role {values.text('role')}.",
            "The dashboard shows the endpoints of the account, their deliveries and the cause of each failure.",
        ),
        details=_rows(("Account", account), ("Role", values.text("role")), ("Expires", until)),
        steps=(
            "Open the link and choose a password. If you already have a password, enter it instead.",
            "Do not forward this link. It works once, and anyone who has it can accept the invitation.",
        ),
        link=("Accept invitation", values.invitation_url),
        closing=f"You received this email because someone entered your email address at {values.server}. If you "
        "did not expect this email, ignore it.",
    )


def _password_reset(values: EmailValues) -> Email:
    until = values.time("expires_at")
    return Email(
        subject="Reset your Uplift Webhooks password",
        title="Reset your password",
        opening=(
            "Someone requested a password reset for your email address.",
            "Your current password works until you set a new one.",
        ),
        details=_rows(("Server", values.server), ("Link expires", until)),
        steps=(
            "Open the link and set a new password. A new password signs you out of all sessions.",
            "Do not forward this link. It works once. If you did not request a reset, ignore this email.",
        ),
        link=("Reset password", values.reset_url),
        closing=f"You received this email because someone entered your email address at {values.server}.",
    )


def _second_factor_changed(values: EmailValues) -> Email:
    title, consequence, steps = _SECOND_FACTOR.get(values.text("change"), _OTHER_CHANGE)
    return Email(
        subject=f"{title} for Uplift Webhooks",
        title=title,
        opening=(consequence,),
        details=_rows(("Server", values.server), ("Time", values.time("at"))),
        steps=(
            *steps,
            "If you did not expect this email, change your password now, and contact the operator of the server.",
        ),
        link=("Open your profile", values.profile_url),
        closing=f"You received this email because you sign in to {values.server} with this email address.",
    )


def _certificate_expiring(values: EmailValues) -> Email:
    if values.endpoint_count > 1:
        return _certificates_expiring(values)
    at = values.time("expires_at")
    return Email(
        subject=f"The client certificate for {values.name} expires on {at.partition(' at ')[0]}",
        title=f"The client certificate for {values.name} expires soon",
        opening=(
            f"Uplift Webhooks authenticates to your endpoint with a client certificate, which expires on {at}.",
            "After that time, your server will probably reject all deliveries.",
        ),
        details=values.endpoint_details(("Certificate expires", at)),
        steps=_RENEW,
        link=values.endpoint_link,
        closing=values.contact_closing,
    )


def _certificates_expiring(values: EmailValues) -> Email:
    first = min((each.number("expires_at"), each.time("expires_at")) for each in values.endpoints)[1]
    return Email(
        subject=f"Client certificates for {counted(values.endpoint_count, 'endpoint')} begin to expire on "
        f"{first.partition(' at ')[0]}",
        title=f"The client certificates for {_endpoints_of_account(values)} expire soon",
        opening=(
            f"Uplift Webhooks authenticates to these endpoints with client certificates. The first expires on {first}.",
            "After a certificate expires, your server will probably reject all deliveries to the endpoint.",
        ),
        details=_endpoint_rows(values, ("certificate expires", "expires_at")),
        steps=_RENEW,
        link=values.home_link,
        closing=values.contact_closing,
    )


_RENEW: Final = (
    "Get a new client certificate from a certificate authority that your server trusts.",
    "Edit the endpoint, and replace the certificate and its private key. The next attempt uses the new certificate.",
    "Send a test event from the endpoint's page to check your server.",
)
_SECOND_FACTOR: Final[Mapping[str, tuple[str, str, tuple[str, ...]]]] = {
    SecondFactorChange.TURNED_ON: (
        "Second factor turned on",
        "Sign-in with your password now also requires a code from your authenticator app.",
        (
            "Keep your recovery codes in a safe place.",
            "You can use each recovery code once instead of a code from your authenticator app.",
        ),
    ),
    SecondFactorChange.TURNED_OFF: (
        "Second factor turned off",
        (
            "Someone used your password and a code to turn off your second factor. Your password alone is now "
            "sufficient to sign in."
        ),
        (),
    ),
    SecondFactorChange.RESET: (
        "An operator reset your second factor",
        "An operator turned off your second factor. Your password alone is now sufficient to sign in.",
        ("To use a second factor again, set up an authenticator app in your profile.",),
    ),
    SecondFactorChange.RECOVERY_CODE_USED: (
        "A recovery code was used",
        "Someone entered your password and one of your recovery codes. You cannot use this recovery code again.",
        ("If you have few recovery codes left, create new recovery codes in your profile.",),
    ),
}
"""The email's title, consequence and next steps for each change to a second factor."""
_OTHER_CHANGE: Final = ("Your second factor changed", "Someone changed your second factor.", ())
_WORDING: Final[Mapping[NotificationKind, Callable[[EmailValues], Email]]] = {
    NotificationKind.ENDPOINT_WARNED: _warned,
    NotificationKind.ENDPOINT_DISABLED: _disabled,
    NotificationKind.ENDPOINT_RECOVERED: _recovered,
    NotificationKind.MASS_FAILURE_BEGAN: _mass_failure_began,
    NotificationKind.MASS_FAILURE_ENDED: _mass_failure_ended,
    NotificationKind.MEMBER_INVITED: _member_invited,
    NotificationKind.PASSWORD_RESET: _password_reset,
    NotificationKind.CERTIFICATE_EXPIRING: _certificate_expiring,
    NotificationKind.SECOND_FACTOR_CHANGED: _second_factor_changed,
}


def _endpoints_of_account(values: EmailValues) -> str:
    account, count = values.text("account"), counted(values.endpoint_count, "endpoint")
    return f"{count} of {account}" if account else count


def _causes(values: EmailValues) -> tuple[str, ...]:
    """Return the most frequent causes, each with the number of affected endpoints."""
    causes = Counter(filter(None, (each.sentence("cause") for each in values.endpoints)))
    return tuple(f"{counted(n, 'endpoint')}: {cause}" for cause, n in causes.most_common(CAUSES_SHOWN_MAX))


def _how_to_fix_all(values: EmailValues) -> tuple[str, ...]:
    """Return the steps that fix the most frequent causes."""
    causes = Counter((each.sentence("cause"), each.sentence("remedy")) for each in values.endpoints)
    remedies = dict.fromkeys(remedy for (_, remedy), _ in causes.most_common(CAUSES_SHOWN_MAX) if remedy)
    return tuple(remedies)


def _endpoint_rows(values: EmailValues, *times: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """Return one row for each endpoint that the email shows. The row contains the URL, cause, response and times.

    If the email does not show all endpoints, the last row contains the number of remaining endpoints.
    """
    rows = []
    for each in values.endpoints[:ENDPOINTS_SHOWN_MAX]:
        known = [f"{label} {each.time(name)}" for label, name in times if each.time(name)]
        text = ", ".join(known)
        response = f"Response: {each.response}." if each.response else ""
        parts = (each.sentence("cause"), response, f"{text[:1].upper()}{text[1:]}")
        rows.append((each.url, " ".join(filter(None, parts))))
    more = values.endpoint_count - len(rows)
    return (*rows, ("More endpoints", f"{more:,}")) if more else tuple(rows)


def _last_error(values: EmailValues) -> tuple[str, ...]:
    cause = values.sentence("cause")
    return (f"Last error: {cause}",) if cause else ()


def _how_to_fix(values: EmailValues) -> tuple[str, ...]:
    remedy = values.sentence("remedy")
    return (remedy,) if remedy else ()


def _rows(*rows: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(row for row in rows if row[1])


def _since(time: str) -> str:
    return f"since {time}" if time else "for several days"


def _after(word: str, text: str) -> str:
    return f"{word}{text}" if text else ""
