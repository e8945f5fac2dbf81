"""The command `uplift-server mail test`, which sends a test email."""

import asyncio
import time
import uuid
from typing import Annotated, Final

import typer

from uplift_server.cli.session import Session, command
from uplift_server.config import Config
from uplift_server.core.people.accounts import check_email
from uplift_server.core.people.mail_settings import parse_mailbox
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.program import add, group

mail_app: Final = group("Test the mail server. To check it without sending an email, use `uplift-server doctor`.")


def register(app: typer.Typer) -> None:
    """Add the `mail` commands to the program."""
    add(app, "mail", mail_app)


@command(mail_app, "test", examples=("uplift-server mail test you@example.com",))
def send_test_email(
    session: Session, address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Email address of the recipient.")]
) -> None:
    """Send a test email.

    The command reads the mail settings from the environment and the configuration file, not from a running server. If
    the mail server rejects the email, the command shows its response and exits with 1.
    """
    config = session.config()
    problem = check_email(address)
    if problem is not None:
        raise CliError(f"{address} is not an email address", "use an address such as coach@example.com", ExitCode.USAGE)
    if not config.sends_mail:
        raise CliError(
            "email is not configured: UPLIFT_SMTP_URL is not set",
            "set UPLIFT_SMTP_URL and UPLIFT_MAIL_FROM",
            ExitCode.USAGE,
        )
    relay = asyncio.run(_send_test_email(config, address))
    if session.output.as_json:
        session.output.json({"recipient": address, "mail_server": relay})
    else:
        session.output.line(f"{relay} accepted the email for {address}. Check the inbox and the spam folder.")


async def _send_test_email(config: Config, address: str) -> str:
    """Send an email. Return the address of the mail server. Raises CliError."""
    # Import here so that other commands start faster.
    from uplift_server.mail.emails import compose_test_email  # noqa: PLC0415
    from uplift_server.mail.failures import MailNotSent  # noqa: PLC0415
    from uplift_server.mail.messages import message  # noqa: PLC0415
    from uplift_server.mail.smtp import SmtpServer  # noqa: PLC0415

    relay, sender = SmtpServer.from_config(config), parse_mailbox(config.mail_from or "")
    made = message(
        compose_test_email(config.public_url),
        sender=sender,
        recipient=address,
        message_id=uuid.uuid4().hex,
        created_at=time.time_ns() // 1_000_000,
    )
    try:
        async with relay.connected() as connection:
            await connection.send(sender.address, address, made)
    except MailNotSent as failure:
        raise CliError(failure.cause, failure.remedy) from failure
    return str(relay)
