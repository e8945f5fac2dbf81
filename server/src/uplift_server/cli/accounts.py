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
    cls=Group, help="Create and delete accounts. To list them, use `uplift-server accounts`.", no_args_is_help=True
)
key_app: Final = typer.Typer(
    cls=Group,
    help="Create and revoke API keys. To list them, use `uplift-server keys`.",
    no_args_is_help=True,
)

Account = Annotated[
    str, typer.Option("--account", metavar="ACCOUNT", help="ID of the account, a unique ID prefix, or its name.")
]
AnyAccount = Annotated[
    str | None,
    typer.Option(
        "--account",
        metavar="ACCOUNT",
        help="ID of the account, a unique ID prefix, or its name. Default: all accounts.",
    ),
]
Wide = Annotated[bool, typer.Option("--wide", "--full", help="Show full IDs and timestamps, even if lines wrap.")]


def register(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.add_typer(account_app, name="account")
    app.add_typer(key_app, name="key")
    command(app, "accounts", examples=("uplift-server accounts",))(accounts)
    command(app, "keys", examples=("uplift-server keys --account 'Rapids Academy'",))(keys)


def accounts(session: Session, limit: Limit = 50, wide: Wide = False) -> None:
    """List accounts, newest first."""
    with reach(session.config()) as client:
        session.output.rows(
            client.items("/v1/accounts", limit=limit),
            [
                Column("id", "ACCOUNT", "id"),
                Column("name", "NAME", gives=True),
                Column("contact_emails", "CONTACTS", gives=True),
                Column("created_at", "CREATED", "timestamp"),
            ],
            empty="No accounts yet. To create one: uplift-server account create NAME --email ADDRESS",
            wide=wide,
        )


@command(account_app, "create", examples=("uplift-server account create 'Rapids Academy' --email data@rapids.example",))
def create_account(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the account.")],
    email: Annotated[
        list[str],
        typer.Option(
            "--email", metavar="ADDRESS", help="Contact who receives emails about the account's endpoints. Repeatable."
        ),
    ],
) -> None:
    """Create an account.

    An account owns endpoints and receives events. This command creates the SQLite file or the PostgreSQL tables if they
    do not exist.
    """
    with reach(session.config(), create=True) as client, options(name="the name", contact_emails="--email"):
        session.output.fields(client.post("/v1/accounts", {"name": name, "contact_emails": email}))


@command(account_app, "delete", examples=("uplift-server account delete acc_0197f0c2 --yes",))
def delete_account(
    session: Session,
    account: Annotated[
        str, typer.Argument(metavar="ACCOUNT", help="ID of the account, a unique ID prefix, or its name.")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Confirm the deletion.")] = False,
) -> None:
    """Delete an account with its endpoints, keys and members.

    The server stops sending the account's deliveries. You cannot undo this.
    """
    with reach(session.config()) as client:
        found = lookup.account(client, account)
        if not yes:
            raise CliError(
                f"this would delete {found['id']} ({found['name']}) with its endpoints, keys and members",
                "to confirm, repeat the command with --yes",
                ExitCode.USAGE,
            )
        client.delete(f"/v1/accounts/{segment(found['id'])}")
        session.output.fields({"id": found["id"], "deleted": True})


def keys(session: Session, account: Account, limit: Limit = 50, wide: Wide = False) -> None:
    """List an account's API keys.

    The list shows only the last characters of each key.
    """
    with reach(session.config()) as client:
        path = lookup.account_path(client, account)
        session.output.rows(
            client.items(f"{path}/keys", limit=limit),
            [
                Column("id", "KEY", "id"),
                Column("name", "NAME", gives=True),
                Column("ends_with", "ENDS WITH"),
                Column("scopes", "SCOPES", folds=True),
                Column("created_at", "CREATED", "timestamp"),
            ],
            empty="No keys yet. To create one: uplift-server key create --account ACCOUNT",
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
        typer.Option(
            "--account",
            metavar="ACCOUNT",
            help="ID of the account, a unique ID prefix, or its name. Without --account, the command generates an"
            " operator key.",
        ),
    ] = None,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Purpose of the key.")] = "command line",
    scopes: Annotated[
        list[str] | None,
        typer.Option(
            "--scopes",
            metavar="SCOPES",
            help="Scopes, separated by commas. Default: all except events:write and secrets:read.",
        ),
    ] = None,
) -> None:
    """Create an API key and print it once.

    An account key works immediately. The server does not store a generated operator key: set UPLIFT_OPERATOR_KEY to it
    and restart the server.
    """
    if account is None:
        if scopes:
            raise CliError("operator keys have no scopes", "add --account, or omit --scopes", ExitCode.USAGE)
        session.output.fields(
            {"key": new_operator_key(), "use": "set UPLIFT_OPERATOR_KEY to it and restart the server"}
        )
        return
    body: dict[str, object] = {"name": name}
    if scopes:
        body["scopes"] = [each.strip() for text in scopes for each in text.split(",")]
    with reach(session.config()) as client, options(name="--name", scopes="--scopes"):
        path = lookup.account_path(client, account)
        session.output.fields(client.post(f"{path}/keys", body))
    session.output.note("Store the key now. You cannot view it again.")


@command(key_app, "revoke", examples=("uplift-server key revoke key_0197f0c2 --account acc_0197f0c2",))
def revoke_key(
    session: Session,
    key: Annotated[str, typer.Argument(metavar="KEY", help="ID of the key, or a unique ID prefix.")],
    account: Account,
) -> None:
    """Revoke an API key.

    The server rejects the next call with this key.
    """
    with reach(session.config()) as client:
        path = lookup.account_path(client, account)
        found = lookup.key(client, key, path)
        client.delete(f"{path}/keys/{segment(found['id'])}")
        session.output.fields({"id": found["id"], "revoked": True})
