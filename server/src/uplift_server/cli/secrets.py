"""Commands for endpoint secrets.

No command takes a secret as an argument, because other users of a machine can see arguments.
"""

from typing import Final

import typer

from uplift_server.cli.accounts import AnyAccount
from uplift_server.cli.endpoints import Endpoint, endpoint_app, place
from uplift_server.cli.reach import reach
from uplift_server.cli.session import Session, command
from uplift_server.core.durations import format_duration, parse_duration
from uplift_webhooks.cli.kit.calls import Calls
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.inputs import Overlap, SecretFile, UpliftHeader, read_secret
from uplift_webhooks.cli.kit.program import add, group
from uplift_webhooks.cli.kit.rejections import Converted, Name, options

_OPTIONS: Final[dict[str, Name]] = {
    "secret": "the secret in --secret-file",
    "overlap_seconds": Converted("--overlap", lambda seconds: format_duration(seconds * 1000)),
    "uplift_header": "--uplift-header",
}

secret_app: Final = group("Show and rotate endpoint secrets.")


def register(_app: typer.Typer) -> None:
    """Add the `secret` commands to the `endpoints` commands."""
    add(endpoint_app, "secret", secret_app)


@command(secret_app, "show", examples=("uplift-server endpoints secret show ep_0197f0c2",))
def show_secret(session: Session, endpoint: Endpoint, account: AnyAccount = None) -> None:
    """Show an endpoint's secret.

    The output also shows the secret in the format that Standard Webhooks libraries use. The audit log records this
    command.
    """
    with reach(session.config()) as client:
        path, owner = _place(client, endpoint, account)
        session.output.fields(client.get(path, account=owner))


@command(
    secret_app,
    "rotate",
    examples=(
        "uplift-server endpoints secret rotate ep_0197f0c2 --overlap 3d",
        "pass show uplift/rapids | uplift-server endpoints secret rotate ep_0197f0c2 --secret-file -",
    ),
)
def rotate_secret(
    session: Session,
    endpoint: Endpoint,
    secret_file: SecretFile = None,
    overlap: Overlap = None,
    uplift_header: UpliftHeader = None,
    account: AnyAccount = None,
) -> None:
    """Rotate an endpoint's secret and print the new one.

    The old secret stays active during the overlap. Until the overlap ends, webhook-signature contains a signature for
    each secret.
    """
    body = {
        "secret": None if secret_file is None else read_secret(secret_file),
        "overlap_seconds": None if overlap is None else _seconds(overlap),
        "uplift_header": uplift_header,
    }
    with (
        reach(session.config()) as client,
        options(**_OPTIONS),
    ):
        path, owner = _place(client, endpoint, account)
        session.output.fields(client.post(f"{path}/rotate", body, account=owner))
    session.output.note("Update the receiver before the old secret expires.")


@command(secret_app, "expire-old", examples=("uplift-server endpoints secret expire-old ep_0197f0c2",))
def expire_old_secret(session: Session, endpoint: Endpoint, account: AnyAccount = None) -> None:
    """Expire an endpoint's old secret immediately.

    The server then signs only with the current secret.
    """
    with reach(session.config()) as client:
        path, owner = _place(client, endpoint, account)
        session.output.fields(client.post(f"{path}/expire-old", account=owner))


def _place(client: Calls, endpoint: str, account: str | None) -> tuple[str, str | None]:
    path, owner = place(client, endpoint, account)
    return f"{path}/secret", owner


def _seconds(text: str) -> int:
    """Convert a duration to whole seconds. Raises CliError."""
    try:
        milliseconds = parse_duration(text)
    except ValueError as error:
        raise CliError(
            f"--overlap: {error}",
            "use a duration such as 24h or 3d, or 0 to expire the old secret immediately",
            ExitCode.USAGE,
        ) from error
    if milliseconds % 1000:
        raise CliError(f"--overlap {text} is not a whole number of seconds", "use whole seconds", ExitCode.USAGE)
    return milliseconds // 1000
