"""`uplift endpoints secret`: show and rotate endpoint secrets."""

from typing import Annotated, Final

import typer

from uplift_webhooks.cli.kit.calls import Calls, segment
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.inputs import Overlap, SecretFile, UpliftHeader, read_secret
from uplift_webhooks.cli.kit.lookup import find
from uplift_webhooks.cli.kit.program import add, group
from uplift_webhooks.cli.kit.rejections import Converted, Name, options
from uplift_webhooks.cli.quantities import duration_seconds
from uplift_webhooks.cli.session import Session, command

_OPTIONS: Final[dict[str, Name]] = {
    "secret": "the secret in --secret-file",
    "overlap_seconds": Converted("--overlap", "{}s".format),
    "uplift_header": "--uplift-header",
}
Endpoint = Annotated[str, typer.Argument(metavar="ENDPOINT", help="ID of the endpoint, or a unique ID prefix.")]


def register(endpoints: typer.Typer) -> None:
    """Add the `secret` commands to the `endpoints` commands."""
    commands = group("Show and rotate the secret of an endpoint.")
    add(endpoints, "secret", commands)
    command(commands, "show", examples=("uplift endpoints secret show ep_0197f0c2",))(show)
    command(
        commands,
        "rotate",
        examples=(
            "uplift endpoints secret rotate ep_0197f0c2 --overlap 3d",
            "pass show uplift/rapids | uplift endpoints secret rotate ep_0197f0c2 --secret-file -",
        ),
    )(rotate)
    command(commands, "expire-old", examples=("uplift endpoints secret expire-old ep_0197f0c2",))(expire_old)


def show(session: Session, endpoint: Endpoint) -> None:
    """Show an endpoint's secret.

    The key needs the scope secrets:read. The audit log records this command.
    """
    calls = session.calls()
    session.output.fields(calls.get(_place(calls, endpoint)))


def rotate(
    session: Session,
    endpoint: Endpoint,
    secret_file: SecretFile = None,
    overlap: Overlap = None,
    uplift_header: UpliftHeader = None,
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
    calls = session.calls()
    with options(**_OPTIONS):
        session.output.fields(calls.post(f"{_place(calls, endpoint)}/rotate", body))
    session.output.note("Update the receiver before the old secret expires.")


def expire_old(session: Session, endpoint: Endpoint) -> None:
    """Expire an endpoint's old secret immediately.

    The server then signs only with the current secret.
    """
    calls = session.calls()
    session.output.fields(calls.post(f"{_place(calls, endpoint)}/expire-old"))


def _place(calls: Calls, endpoint: str) -> str:
    """Return the API path of an endpoint's secret."""
    return f"/v1/endpoints/{segment(find(calls, '/v1/endpoints', 'endpoint', 'ep_', endpoint)['id'])}/secret"


def _seconds(text: str) -> int:
    try:
        return round(duration_seconds("0s" if text == "0" else text))
    except ValueError as error:
        raise CliError(
            f"--overlap: {error}",
            "use a duration such as 24h or 3d, or 0 to expire the old secret immediately",
            ExitCode.USAGE,
        ) from error
