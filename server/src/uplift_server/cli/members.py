"""Commands for members of accounts, and for dashboard links."""

from typing import Annotated, Final

import typer

from uplift_server.cli import lookup
from uplift_server.cli.accounts import Account, Wide
from uplift_server.cli.advice import REMEDY_WITHOUT_KEY
from uplift_server.cli.reach import reach, remedy_beside_worker, server_runs, serves_api
from uplift_server.cli.session import Session, command
from uplift_server.config import Config
from uplift_webhooks.cli.kit.calls import segment
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.inputs import Limit
from uplift_webhooks.cli.kit.program import Group
from uplift_webhooks.cli.kit.rejections import options
from uplift_webhooks.cli.kit.tables import Column

member_app: Final = typer.Typer(
    cls=Group,
    help="Invite, change and remove the members of accounts; `uplift-server members` lists them.",
    no_args_is_help=True,
)

Member = Annotated[str, typer.Argument(help="Id, unique beginning of it, or mail address.")]
Role = Annotated[str, typer.Option("--role", metavar="ROLE", help="member, manager, admin or owner.")]
_INVITATIONS: Final = [
    Column("id", "INVITATION", "id"),
    Column("email", "EMAIL", gives=True),
    Column("role", "ROLE"),
    Column("invited_by", "INVITED BY", gives=True),
    Column("expires_at", "ENDS", "instant"),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    app.add_typer(member_app, name="member")
    command(app, "members", examples=("uplift-server members --account 'Rapids Academy'",))(members)
    command(
        app,
        "sign-in-link",
        examples=(
            "uplift-server sign-in-link",
            "uplift-server sign-in-link --account 'Rapids Academy' --email coach@rapids.example --role owner",
        ),
    )(sign_in_link)


def members(session: Session, account: Account, limit: Limit = 50, wide: Wide = False) -> None:
    """List an account's members."""
    with reach(session.config()) as client:
        path = lookup.account_path(client, account)
        session.output.rows(
            client.items(f"{path}/members", limit=limit),
            [
                Column("id", "MEMBER", "id"),
                Column("email", "EMAIL", gives=True),
                Column("name", "NAME", gives=True),
                Column("role", "ROLE"),
                Column("created_at", "SINCE", "instant"),
            ],
            empty="No members yet. Invite one: uplift-server member invite EMAIL --role owner --account ACCOUNT",
            wide=wide,
        )


@command(
    member_app,
    "invite",
    examples=("uplift-server member invite coach@rapids.example --role owner --account 'Rapids Academy'",),
)
def invite(
    session: Session,
    email: Annotated[str, typer.Argument(help="Where the invitation goes.")],
    role: Role,
    account: Account,
) -> None:
    """Invite somebody by mail; where the server sends none, print the link to hand over."""
    with reach(session.config()) as client, options(email="the mail address", role="--role"):
        path = lookup.account_path(client, account)
        made = client.post(f"{path}/members", {"email": email, "role": role})
        session.output.fields(made)
    if "url" in made:
        session.output.note("Hand the link over: whoever has it can join. It is not shown again.")


@command(member_app, "invitations", examples=("uplift-server member invitations --account 'Rapids Academy'",))
def invitations(session: Session, account: Account, limit: Limit = 50, wide: Wide = False) -> None:
    """List an account's open invitations."""
    with reach(session.config()) as client:
        path = lookup.account_path(client, account)
        session.output.rows(
            client.items(f"{path}/invitations", limit=limit),
            _INVITATIONS,
            empty="No open invitations.",
            wide=wide,
        )


@command(member_app, "withdraw", examples=("uplift-server member withdraw inv_0197f0c2 --account acc_0197f0c2",))
def withdraw(
    session: Session,
    invitation: Annotated[str, typer.Argument(help="Id, unique beginning of it, or mail address.")],
    account: Account,
) -> None:
    """Withdraw an invitation; its link leads nowhere from now on."""
    with reach(session.config()) as client:
        path = lookup.account_path(client, account)
        found = lookup.invitation(client, invitation, path)
        client.delete(f"{path}/invitations/{segment(found['id'])}")
        session.output.fields({"id": found["id"], "withdrawn": True})


@command(
    member_app, "role", examples=("uplift-server member role coach@rapids.example --role admin --account acc_0197f0c2",)
)
def change_role(session: Session, member: Member, role: Role, account: Account) -> None:
    """Give a member another role."""
    with reach(session.config()) as client, options(role="--role"):
        path = lookup.account_path(client, account)
        found = lookup.member(client, member, path)
        session.output.fields(client.patch(f"{path}/members/{segment(found['id'])}", {"role": role}))


@command(member_app, "remove", examples=("uplift-server member remove coach@rapids.example --account acc_0197f0c2",))
def remove(session: Session, member: Member, account: Account) -> None:
    """Remove a member; what they have open in the dashboard ends with it."""
    with reach(session.config()) as client:
        path = lookup.account_path(client, account)
        found = lookup.member(client, member, path)
        client.delete(f"{path}/members/{segment(found['id'])}")
        session.output.fields({"id": found["id"], "removed": True})


@command(
    member_app,
    "reset-password",
    examples=("uplift-server member reset-password coach@rapids.example --account acc_0197f0c2",),
)
def reset_password(session: Session, member: Member, account: Account) -> None:
    """Print a link with which a member replaces a forgotten password."""
    with reach(session.config()) as client:
        path = lookup.account_path(client, account)
        found = lookup.member(client, member, path)
        session.output.fields(client.post(f"{path}/members/{segment(found['id'])}/password-reset", {}))
    session.output.note("Hand the link over: whoever has it can set the password. It works once, for an hour.")


def sign_in_link(
    session: Session,
    account: Annotated[
        str | None,
        typer.Option(
            "--account", metavar="ACCOUNT", help="Id, unique beginning of it, or name; without it, an operator's link."
        ),
    ] = None,
    email: Annotated[
        str | None,
        typer.Option("--email", help="Whom it lets in, as a member; a guest if absent."),
    ] = None,
    role: Annotated[
        str | None, typer.Option("--role", metavar="ROLE", help="Of whom is no member yet; member if absent.")
    ] = None,
) -> None:
    """Print a link that signs somebody in to the dashboard, once and within five minutes."""
    config = session.config()
    if account is None and (email or role):
        raise CliError("an operator's link has no mail address and no role", "name an account, too", ExitCode.USAGE)
    _check_server(config, for_operator=account is None)
    with reach(config) as client, options(email="--email", role="--role"):
        if account is None:
            path, body = "/v1/sign-in-links", {}
        else:
            path = f"{lookup.account_path(client, account)}/portal-links"
            body = {name: value for name, value in (("email", email), ("role", role)) if value is not None}
        session.output.fields(client.post(path, body))
    session.output.note("Open it in a browser: it works once, within five minutes.")


def _check_server(config: Config, *, for_operator: bool) -> None:
    """Check that a server runs for a link, and for an operator's link that its operator key is configured."""
    if not server_runs(config):
        raise CliError(
            "no server runs that the link would lead to", "start it with `uplift-server serve`, then repeat this"
        )
    if not serves_api(config):
        raise CliError("the server that runs here has no dashboard for the link", remedy_beside_worker(config))
    if for_operator and config.on_postgresql and config.operator_key is None:
        raise CliError("an operator's link is made with the operator key", REMEDY_WITHOUT_KEY, ExitCode.NOT_ALLOWED)
