"""Commands that manage account members and dashboard links."""

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
from uplift_webhooks.cli.kit.lookup import find
from uplift_webhooks.cli.kit.program import add, group, noun
from uplift_webhooks.cli.kit.rejections import options
from uplift_webhooks.cli.kit.tables import Column

member_app: Final = noun("List, invite, update and remove members of accounts.")
link_app: Final = group("Create links that sign in to the dashboard.")
portal_link_app: Final = noun("List and revoke unused portal links, which are sign-in links of an account.")

Member = Annotated[
    str, typer.Argument(metavar="MEMBER", help="ID of the member, a unique ID prefix, or the email address.")
]
Role = Annotated[str, typer.Option("--role", metavar="member|manager|admin|owner", help="Role of the member.")]
_INVITATIONS: Final = [
    Column("id", "INVITATION", "id"),
    Column("email", "EMAIL", gives=True),
    Column("role", "ROLE"),
    Column("invited_by", "INVITED BY", gives=True),
    Column("expires_at", "EXPIRES", "timestamp"),
]


def register(app: typer.Typer) -> None:
    """Add the `members`, `sign-in-links` and `portal-links` commands to the program."""
    add(app, "members", member_app, former="member")
    add(app, "sign-in-links", link_app)
    add(app, "portal-links", portal_link_app, former="portal-link")
    examples = (
        "uplift-server sign-in-links create",
        "uplift-server sign-in-links create --read-only",
        "uplift-server sign-in-links create --account 'Rapids Academy' --email coach@rapids.example --role owner",
    )
    command(link_app, "create", examples=examples)(sign_in_link)
    command(app, "sign-in-link", examples=examples, hidden=True)(sign_in_link)


@command(member_app, "list", examples=("uplift-server members --account 'Rapids Academy'",))
def list_members(session: Session, account: Account, limit: Limit = 50, wide: Wide = False) -> None:
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
                Column("created_at", "SINCE", "timestamp"),
            ],
            empty="No members yet. To invite one: uplift-server members invite EMAIL --role owner --account ACCOUNT",
            wide=wide,
        )


@command(
    member_app,
    "invite",
    examples=("uplift-server members invite coach@rapids.example --role owner --account 'Rapids Academy'",),
)
def invite(
    session: Session,
    email: Annotated[str, typer.Argument(metavar="EMAIL", help="Email address of the new member.")],
    role: Role,
    account: Account,
) -> None:
    """Invite a member to an account by email.

    The invitation is valid for 7 days. If the server cannot send email, the command prints the link once.
    """
    with reach(session.config()) as client, options(email="the email address", role="--role"):
        path = lookup.account_path(client, account)
        made = client.post(f"{path}/members", {"email": email, "role": role})
        session.output.fields(made)
    if "url" in made:
        session.output.note("Send the link only to the new member: anyone with it can join. You cannot view it again.")


@command(member_app, "invitations", examples=("uplift-server members invitations --account 'Rapids Academy'",))
def invitations(session: Session, account: Account, limit: Limit = 50, wide: Wide = False) -> None:
    """List an account's pending invitations."""
    with reach(session.config()) as client:
        path = lookup.account_path(client, account)
        session.output.rows(
            client.items(f"{path}/invitations", limit=limit),
            _INVITATIONS,
            empty="No pending invitations.",
            wide=wide,
        )


@command(member_app, "withdraw", examples=("uplift-server members withdraw inv_0197f0c2 --account acc_0197f0c2",))
def withdraw(
    session: Session,
    invitation: Annotated[
        str,
        typer.Argument(metavar="INVITATION", help="ID of the invitation, a unique ID prefix, or the email address."),
    ],
    account: Account,
) -> None:
    """Withdraw a pending invitation.

    The invitation link stops working immediately.
    """
    with reach(session.config()) as client:
        path = lookup.account_path(client, account)
        found = lookup.invitation(client, invitation, path)
        client.delete(f"{path}/invitations/{segment(found['id'])}")
        session.output.fields({"id": found["id"], "withdrawn": True})


@command(
    member_app,
    "role",
    examples=("uplift-server members role coach@rapids.example --role admin --account acc_0197f0c2",),
)
def change_role(session: Session, member: Member, role: Role, account: Account) -> None:
    """Change a member's role.

    The new role applies immediately, including in open sessions. You cannot change the last owner's role.
    """
    with reach(session.config()) as client, options(role="--role"):
        path = lookup.account_path(client, account)
        found = lookup.member(client, member, path)
        session.output.fields(client.patch(f"{path}/members/{segment(found['id'])}", {"role": role}))


@command(member_app, "remove", examples=("uplift-server members remove coach@rapids.example --account acc_0197f0c2",))
def remove(session: Session, member: Member, account: Account) -> None:
    """Remove a member from an account.

    The member's dashboard sessions no longer show the account. You cannot remove the last owner.
    """
    with reach(session.config()) as client:
        path = lookup.account_path(client, account)
        found = lookup.member(client, member, path)
        client.delete(f"{path}/members/{segment(found['id'])}")
        session.output.fields({"id": found["id"], "removed": True})


@command(
    member_app,
    "reset-password",
    examples=("uplift-server members reset-password coach@rapids.example --account acc_0197f0c2",),
)
def reset_password(session: Session, member: Member, account: Account) -> None:
    """Print a link that resets a member's password.

    The link works once, within 1 hour. If email is configured, members can request a link on the sign-in page.
    """
    with reach(session.config()) as client:
        path = lookup.account_path(client, account)
        found = lookup.member(client, member, path)
        session.output.fields(client.post(f"{path}/members/{segment(found['id'])}/password-reset", {}))
    session.output.note(
        "Send the link only to the member: anyone with it can set the password. It works once and expires in 1 hour."
    )


@command(
    member_app,
    "reset-second-factor",
    examples=("uplift-server members reset-second-factor coach@rapids.example --account acc_0197f0c2",),
)
def reset_second_factor(session: Session, member: Member, account: Account) -> None:
    """Turn off the second factor for a member who lost the authenticator app and the recovery codes.

    The member can then sign in with only the password. Before you run the command, make sure that the request comes
    from the member.
    """
    with reach(session.config()) as client:
        path = lookup.account_path(client, account)
        found = lookup.member(client, member, path)
        client.delete(f"{path}/members/{segment(found['id'])}/second-factor")
        session.output.fields({"id": found["id"], "has_second_factor": False})


@command(portal_link_app, "list", examples=("uplift-server portal-links list --account 'Rapids Academy'",))
def portal_links(session: Session, account: Account, limit: Limit = 50, wide: Wide = False) -> None:
    """List an account's unused portal links that have not expired."""
    with reach(session.config()) as client:
        path = lookup.account_path(client, account)
        session.output.rows(
            client.items(f"{path}/portal-links", limit=limit),
            [
                Column("id", "LINK", "id"),
                Column("email", "EMAIL", gives=True),
                Column("role", "ROLE"),
                Column("expires_at", "EXPIRES", "timestamp"),
            ],
            empty="No unused portal links.",
            wide=wide,
        )


@command(portal_link_app, "revoke", examples=("uplift-server portal-links revoke lnk_0197f0c2 --account acc_0197f0c2",))
def revoke_portal_link(
    session: Session,
    link: Annotated[str, typer.Argument(metavar="LINK", help="ID of the link, or a unique ID prefix.")],
    account: Account,
) -> None:
    """Revoke an unused portal link.

    The link stops working immediately. Dashboard sessions that began with a portal link do not end.
    """
    with reach(session.config()) as client:
        path = f"{lookup.account_path(client, account)}/portal-links"
        found = find(client, path, "portal link", "lnk_", link)
        client.delete(f"{path}/{segment(found['id'])}")
        session.output.fields({"id": found["id"], "revoked": True})


def sign_in_link(
    session: Session,
    account: Annotated[
        str | None,
        typer.Option(
            "--account",
            metavar="ACCOUNT",
            help="ID, uid or name of the account, or a unique ID prefix. Without --account, the link signs in an"
            " operator.",
        ),
    ] = None,
    email: Annotated[
        str | None,
        typer.Option(
            "--email",
            metavar="ADDRESS",
            help="Email address of the member. Without --email, the link signs in a guest.",
        ),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(
            "--role",
            metavar="member|manager|admin|owner",
            help="Role of a guest or a new member. Default: member.",
        ),
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Sign in a read-only operator, who cannot see secrets.")
    ] = False,
) -> None:
    """Print a link that signs a person in to the dashboard.

    The link works once and expires after 5 minutes: send it only to that person. Without options, the link signs in an
    operator. With --account and --email, the link signs in a member and adds the member if needed. This command
    requires a running server.
    """
    config = session.config()
    if account is None and (email or role):
        raise CliError(
            "--email and --role require --account", "add --account, or omit --email and --role", ExitCode.USAGE
        )
    if account is not None and read_only:
        raise CliError("--read-only and --account cannot be combined", "omit --account or --read-only", ExitCode.USAGE)
    _check_server(config, for_operator=account is None)
    with reach(config) as client, options(email="--email", role="--role"):
        body: dict[str, object]
        if account is None:
            path, body = "/v1/sign-in-links", {"read_only": True} if read_only else {}
        else:
            path = f"{lookup.account_path(client, account)}/portal-links"
            body = {name: value for name, value in (("email", email), ("role", role)) if value is not None}
        session.output.fields(client.post(path, body))
    session.output.note(
        "Open the link, or send it only to the person who signs in. It works once and expires after 5 minutes."
    )


def _check_server(config: Config, *, for_operator: bool) -> None:
    """Check that a server with a dashboard is running. For an operator's link, also check the operator key."""
    if not server_runs(config):
        raise CliError(
            "a sign-in link requires a running server", "run `uplift-server serve`, then repeat this command"
        )
    if not serves_api(config):
        raise CliError(
            "the server at UPLIFT_HOST and UPLIFT_PORT is a worker and has no dashboard", remedy_beside_worker(config)
        )
    if for_operator and config.on_postgresql and config.operator_key is None:
        raise CliError("an operator link requires the operator key", REMEDY_WITHOUT_KEY, ExitCode.NOT_ALLOWED)
