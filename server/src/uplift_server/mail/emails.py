"""The words of each notification, for both forms of its email.

No email contains the body of a request or response. Links with tokens are only in the emails about them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from uplift_server.core.people.notifications import Notification, NotificationKind
from uplift_server.mail.email_values import EmailValues, counted


@dataclass(frozen=True, slots=True)
class Email:
    """The words of an email. Every text is one printable line without HTML."""

    subject: str
    title: str
    opening: tuple[str, ...]
    """Paragraphs: what happened and what follows."""
    details: tuple[tuple[str, str], ...]
    """Labels and values."""
    steps: tuple[str, ...]
    """How to fix the problem."""
    link: tuple[str, str]
    """Label and URL."""
    closing: str
    """Why the reader gets the email."""


def compose_email(notification: Notification, public_url: str, link_key: bytes) -> Email:
    """Return the words of a notification. `public_url` is the URL of this server, without trailing slash.

    `link_key` derives the secret parts of links.
    """
    return _WORDING[notification.kind](EmailValues(notification.facts, public_url, link_key))


def compose_test_email(public_url: str) -> Email:
    """Return a test email for the mail server."""
    return Email(
        subject="Mail from Uplift Webhooks arrives",
        title="Mail from Uplift Webhooks arrives",
        opening=("An operator asked the server for this mail, to see whether its notices reach people. They do.",),
        details=(("Server", public_url),),
        steps=("Nothing is asked of you.",),
        link=("Open Uplift Webhooks", public_url),
        closing="You get this mail because an operator of Uplift Webhooks sent it to try the mail server.",
    )


_OPERATOR_CLOSING: Final = "You get this mail because UPLIFT_OPERATOR_EMAIL of this server is your address."


def _warned(values: EmailValues) -> Email:
    disabled_at = values.time("disable_at")
    since = values.time("failing_since")
    subject = f"Webhooks to {values.name} are failing"
    consequence = "If nothing changes, the endpoint will be disabled."
    if disabled_at:
        subject += f" and will be switched off on {disabled_at.partition(',')[0]}"
        consequence = f"Unless an event gets through before {disabled_at}, the endpoint will be disabled then."
    return Email(
        subject=subject,
        title=f"{values.name} does not accept our webhooks",
        opening=(
            (
                f"Your endpoint has failed since {since or 'some days ago'}: "
                f"{counted(values.number('failed_attempts'), 'attempt')} failed and none succeeded."
            ),
            *_last_error(values),
            (
                f"{consequence} Nothing more is sent to a disabled endpoint; its events are held, not lost, until "
                "you enable it again."
            ),
        ),
        details=values.endpoint_details(
            ("Failing since", since),
            ("Failed attempts", f"{values.number('failed_attempts'):,}"),
            ("Will be disabled", disabled_at),
        ),
        steps=(
            *_remedy(values),
            "Send a test from the endpoint's page to see whether it works. Tests do not count.",
            "The first event that your server accepts ends the warning, and we write to you then.",
        ),
        link=values.endpoint_link,
        closing=values.contact_closing,
    )


def _disabled(values: EmailValues) -> Email:
    since = values.time("failing_since")
    failed = values.number("failed_attempts")
    by_reason = {
        "failing": f"It has failed since {since or 'some days ago'}: {counted(failed, 'attempt')} failed and none "
        "succeeded. We disabled it.",
        "gone": "Your server answered 410 Gone: this address will not come back. We disabled it.",
        "operator": "The operator of Uplift Webhooks disabled it.",
    }
    reason = values.text("reason")
    return Email(
        subject=f"Webhooks to {values.name} have been switched off",
        title=f"Nothing more is sent to {values.name}",
        opening=(
            f"Your endpoint is disabled. {by_reason.get(reason, '')}".strip(),
            *_last_error(values),
            "Its events are held from now on, and so is what was still to be sent: nothing of that is lost.",
        ),
        details=values.endpoint_details(
            ("Failing since", since),
            ("Failed attempts", f"{failed:,}" if failed else ""),
        ),
        steps=(
            *_remedy(values),
            *(("Ask the operator why, and whether you may enable it.",) if reason == "operator" else ()),
            "Send a test from the endpoint's page: that works while it is disabled.",
            (
                "Enable it, and choose whether what was held is sent, kept or dropped; or delete it, if you want no "
                "more of its events."
            ),
        ),
        link=values.endpoint_link,
        closing=values.contact_closing,
    )


def _recovered(values: EmailValues) -> Email:
    since, at = values.time("failed_since"), values.time("recovered_at")
    return Email(
        subject=f"Webhooks to {values.name} arrive again",
        title=f"{values.name} accepts our webhooks again",
        opening=(
            f"Your endpoint accepted an event{f' on {at}' if at else ''}. "
            + (f"It had failed since {since}." if since else "It had failed for days."),
            (
                "The warning has ended, and the endpoint will not be disabled. What is still pending is sent as its "
                "schedule says."
            ),
        ),
        details=values.endpoint_details(("Failed since", since), ("Works again since", at)),
        steps=(
            "Nothing has to be done.",
            "Deliveries whose attempts were all spent are marked failed: send those again from the endpoint's page.",
        ),
        link=values.endpoint_link,
        closing=values.contact_closing,
    )


def _mass_failure_began(values: EmailValues) -> Email:
    failing, attempted = values.number("endpoints"), values.number("attempted")
    return Email(
        subject=f"{failing:,} of {attempted:,} endpoints began to fail at once",
        title="Many endpoints fail at once",
        opening=(
            (
                f"{counted(failing, 'endpoint')} began to fail within the same hour, of {attempted:,} that were sent "
                "something in the last 24 hours. So many together are seldom the fault of their owners."
            ),
            (
                "Until this ends nobody is warned and no endpoint is disabled, and the time counts against nobody. "
                "Attempts go on as scheduled. You will be told when it has ended."
            ),
        ),
        details=(
            *_rows(("Since", values.time("since"))),
            ("Began to fail", counted(failing, "endpoint")),
            ("Attempted in 24 hours", counted(attempted, "endpoint")),
            *values.causes,
        ),
        steps=(
            "Run uplift-server doctor on the server: it tries DNS, the way out and the certificates it trusts.",
            (
                "Look at the firewall, the egress proxy and the provider of the network, in so far as the causes below "
                "point there."
            ),
            "Look at single attempts with uplift-server deliveries: each has its error.",
        ),
        link=values.home_link,
        closing=_OPERATOR_CLOSING,
    )


def _mass_failure_ended(values: EmailValues) -> Email:
    still = values.number("still_failing")
    since, ended_at = values.time("since"), values.time("ended_at")
    return Email(
        subject="The mass failure of endpoints has ended",
        title="Enough endpoints answer again",
        opening=(
            (
                f"The failing of {counted(values.number('endpoints'), 'endpoint')}{_after(' since ', since)} has ended"
                f"{_after(' on ', ended_at)}. {counted(still, 'endpoint')} still {'fails' if still == 1 else 'fail'}."
            ),
            (
                "From now on time counts again: owners whose endpoints go on failing are warned, and their endpoints "
                "disabled, later by as long as this took."
            ),
        ),
        details=_rows(
            ("Began", since),
            ("Ended", ended_at),
            ("Had failed", counted(values.number("endpoints"), "endpoint")),
            ("Still failing", counted(still, "endpoint")),
        ),
        steps=("Nothing has to be done. If the cause was not found, look at the attempts of that time.",),
        link=values.home_link,
        closing=_OPERATOR_CLOSING,
    )


def _member_invited(values: EmailValues) -> Email:
    account, until = values.text("account"), values.time("expires_at")
    return Email(
        subject=f"You are invited to {account} on Uplift Webhooks",
        title=f"Join {account}",
        opening=(
            f"{values.text('invited_by')} invites you to the account {account}, as {values.text('role')}.",
            "There you see which webhooks it gets, what was delivered and what was not, and why.",
        ),
        details=_rows(("Account", account), ("Role", values.text("role")), ("Accept before", until)),
        steps=(
            "Open the link, and choose a password; if you sign in there already, give the one you have.",
            "The link is for you alone: whoever has it can join in your place. It works once.",
        ),
        link=("Accept the invitation", values.invitation_url),
        closing=f"You received this email because someone entered your address at {values.server}. If you did not "
        "expect it, ignore it.",
    )


def _password_reset(values: EmailValues) -> Email:
    until = values.time("expires_at")
    return Email(
        subject="A new password for Uplift Webhooks",
        title="Choose a new password",
        opening=(
            "Somebody, probably you, asked for a new password of yours.",
            "Until you choose one, the one you have goes on working.",
        ),
        details=_rows(("Server", values.server), ("Works until", until)),
        steps=(
            "Open the link, and choose a password. All your sessions end then, wherever they are.",
            "The link is for you alone, and works once. If you did not ask for it, nothing has to be done.",
        ),
        link=("Choose a new password", values.reset_url),
        closing=f"You get this mail because your address was given at {values.server} as that of a forgotten password.",
    )


_WORDING: Final[Mapping[NotificationKind, Callable[[EmailValues], Email]]] = {
    NotificationKind.ENDPOINT_WARNED: _warned,
    NotificationKind.ENDPOINT_DISABLED: _disabled,
    NotificationKind.ENDPOINT_RECOVERED: _recovered,
    NotificationKind.MASS_FAILURE_BEGAN: _mass_failure_began,
    NotificationKind.MASS_FAILURE_ENDED: _mass_failure_ended,
    NotificationKind.MEMBER_INVITED: _member_invited,
    NotificationKind.PASSWORD_RESET: _password_reset,
}


def _last_error(values: EmailValues) -> tuple[str, ...]:
    cause = values.sentence("cause")
    return (f"The last error: {cause}",) if cause else ()


def _remedy(values: EmailValues) -> tuple[str, ...]:
    remedy = values.sentence("remedy")
    return (remedy,) if remedy else ()


def _rows(*rows: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(row for row in rows if row[1])


def _after(word: str, text: str) -> str:
    return f"{word}{text}" if text else ""
