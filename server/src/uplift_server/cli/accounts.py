"""Commands for accounts and their API keys."""

from typing import Annotated, Final

import typer

from uplift_server.cli import lookup
from uplift_server.cli.reach import new_operator_key, reach
from uplift_server.cli.session import Session, command
from uplift_webhooks.cli.kit.calls import segment
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.inputs import Limit
from uplift_webhooks.cli.kit.program import Group
from uplift_webhooks.cli.kit.rejections import options
from uplift_webhooks.cli.kit.tables import Column

account_app: Final = typer.Typer(
    cls=Group, help="Create and delete accounts; `uplift-server accounts` lists them.", no_args_is_help=True
)
key_app: Final = typer.Typer(
    cls=Group,
    help="Create and revoke the keys programs call the API with; `uplift-server keys` lists them.",
    no_args_is_help=True,
)

Account = Annotated[str, typer.Option("--account", metavar="ACCOUNT", help="Id, unique beginning of it, or name.")]
AnyAccount = Annotated[
    str | None, typer.Option("--account", metavar="ACCOUNT", help="Id, unique beginning of it, or name. All if absent.")
]
Wide = Annotated[
    bool, typer.Option("--wide", "--full", help="Show ids and times in full, even if the table does not fit.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    app.add_typer(account_app, name="account")
    app.add_typer(key_app, name="key")
    command(app, "accounts", examples=("uplift-server accounts",))(accounts)
    command(app, "keys", examples=("uplift-server keys --account 'Rapids Academy'",))(keys)


def accounts(session: Session, limit: Limit = 50, wide: Wide = False) -> None:
    """List the accounts."""
    with reach(session.config()) as client:
        session.output.rows(
            client.items("/v1/accounts", limit=limit),
            [
                Column("id", "ACCOUNT", "id"),
                Column("name", "NAME", gives=True),
                Column("contact_emails", "CONTACTS", gives=True),
                Column("created_at", "CREATED", "instant"),
            ],
            empty="No accounts yet. Create one: uplift-server account create NAME --email ADDRESS",
            wide=wide,
        )


@command(account_app, "create", examples=("uplift-server account create 'Rapids Academy' --email data@rapids.example",))
def create_account(
    session: Session,
    name: Annotated[str, typer.Argument(help="What people call it.")],
    email: Annotated[list[str], typer.Option("--email", help="Whom to write to about its endpoints; repeatable.")],
) -> None:
    """Create an account."""
    with reach(session.config(), create=True) as client, options(name="the name", contact_emails="--email"):
        session.output.fields(client.post("/v1/accounts", {"name": name, "contact_emails": email}))


@command(account_app, "delete", examples=("uplift-server account delete acc_0197f0c2 --yes",))
def delete_account(
    session: Session,
    account: Annotated[str, typer.Argument(help="Id, unique beginning of it, or name.")],
    yes: Annotated[bool, typer.Option("--yes", help="Really delete it.")] = False,
) -> None:
    """Delete an account with its endpoints and keys; nothing is sent for it any more."""
    with reach(session.config()) as client:
        found = lookup.account(client, account)
        if not yes:
            raise CliError(
                f"{found['id']} ({found['name']}) would be deleted with all it has",
                "repeat the command with --yes",
                ExitCode.USAGE,
            )
        client.delete(f"/v1/accounts/{segment(found['id'])}")
        session.output.fields({"id": found["id"], "deleted": True})


def keys(session: Session, account: Account, limit: Limit = 50, wide: Wide = False) -> None:
    """List an account's keys."""
    with reach(session.config()) as client:
        path = lookup.account_path(client, account)
        session.output.rows(
            client.items(f"{path}/keys", limit=limit),
            [
                Column("id", "KEY", "id"),
                Column("name", "NAME", gives=True),
                Column("ends_with", "ENDS WITH"),
                Column("scopes", "SCOPES", folds=True),
                Column("created_at", "CREATED", "instant"),
            ],
            empty="No keys yet. Create one: uplift-server key create --account ACCOUNT",
            wide=wide,
        )


@command(
    key_app,
    "create",
    examples=(
        "uplift-server key create --account acc_0197f0c2",
        "uplift-server key create --account acc_0197f0c2 --scopes events:read,deliveries:read --name reports",
        "uplift-server key create",
    ),
)
def create_key(
    session: Session,
    account: Annotated[
        str | None,
        typer.Option("--account", metavar="ACCOUNT", help="Whose key; without it, a key for operators is made up."),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="What the key is for.")] = "command line",
    scopes: Annotated[
        list[str] | None, typer.Option("--scopes", help="Permissions, between commas; all but two if absent.")
    ] = None,
) -> None:
    """Create a key, and print it once: it cannot be shown again.

    An account's key works at once. An operator's is not stored: it is the one the server is started with.
    """
    if account is None:
        if scopes:
            raise CliError("an operator's key has no scopes", "name an account, or no scopes", ExitCode.USAGE)
        session.output.fields({"key": new_operator_key(), "use": "start the server with it as UPLIFT_OPERATOR_KEY"})
        return
    body: dict[str, object] = {"name": name}
    if scopes:
        body["scopes"] = [each.strip() for text in scopes for each in text.split(",")]
    with reach(session.config()) as client, options(name="--name", scopes="--scopes"):
        path = lookup.account_path(client, account)
        session.output.fields(client.post(f"{path}/keys", body))
    session.output.note("Keep the key now: it is not shown again.")


@command(key_app, "revoke", examples=("uplift-server key revoke key_0197f0c2 --account acc_0197f0c2",))
def revoke_key(
    session: Session, key: Annotated[str, typer.Argument(help="Id or unique beginning of it.")], account: Account
) -> None:
    """Revoke a key; what calls with it is refused from now on."""
    with reach(session.config()) as client:
        path = lookup.account_path(client, account)
        found = lookup.key(client, key, path)
        client.delete(f"{path}/keys/{segment(found['id'])}")
        session.output.fields({"id": found["id"], "revoked": True})
