"""The command that tests the mail server."""

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
from uplift_webhooks.cli.kit.program import Group

mail_app: Final = typer.Typer(
    cls=Group, help="Try the mail server; `uplift-server doctor` checks it without sending.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    app.add_typer(mail_app, name="mail")


@command(mail_app, "test", examples=("uplift-server mail test you@example.com",))
def send_trial(
    session: Session, address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Whom to send it to.")]
) -> None:
    """Send a mail at once, to see that notices would arrive.

    It goes to the mail server of this shell's settings, whether or not a server runs.
    """
    config = session.config()
    problem = check_email(address)
    if problem is not None:
        raise CliError(f"{address} is no mail address", "write it like coach@example.com", ExitCode.USAGE)
    if not config.sends_mail:
        raise CliError("no mail is sent: UPLIFT_SMTP_URL is not set", "set it, and UPLIFT_MAIL_FROM", ExitCode.USAGE)
    relay = asyncio.run(_send_trial(config, address))
    if session.output.as_json:
        session.output.json({"recipient": address, "mail_server": relay})
    else:
        session.output.line(f"{relay} took the mail for {address}. Look into the mailbox, spam too.")


async def _send_trial(config: Config, address: str) -> str:
    """Send an email; return the mail server. Raises CliError."""
    # Imported here so that other commands start faster.
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
