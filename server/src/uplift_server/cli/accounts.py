"""Commands that manage accounts and API keys."""

from typing import Annotated, Final

import typer

from uplift_server.cli import lookup
from uplift_server.cli.reach import new_operator_key, reach
from uplift_server.cli.session import Session, command
from uplift_webhooks.cli.kit.calls import Calls, segment
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.inputs import OWN_DATA_OPTIONS, Limit, Metadata, Uid, metadata_of
from uplift_webhooks.cli.kit.program import add, noun
from uplift_webhooks.cli.kit.rejections import options
from uplift_webhooks.cli.kit.tables import Column

account_app: Final = noun("List, show, create, update and delete accounts.")
key_app: Final = noun("List, create, update and revoke API keys.")

NamedAccount = Annotated[
    str, typer.Argument(metavar="ACCOUNT", help="ID, uid or name of the account, or a unique ID prefix.")
]
Account = Annotated[
    str, typer.Option("--account", metavar="ACCOUNT", help="ID, uid or name of the account, or a unique ID prefix.")
]
AnyAccount = Annotated[
    str | None,
    typer.Option(
        "--account",
        metavar="ACCOUNT",
        help="ID, uid or name of the account, or a unique ID prefix. Default: all accounts.",
    ),
]
KeyOwner = Annotated[
    str | None,
    typer.Option("--account", metavar="ACCOUNT", help="ID, uid or name of the account, or a unique ID prefix."),
]
Service = Annotated[
    bool,
    typer.Option("--service", help="Select service keys. Within its scopes, a service key acts for all accounts."),
]
Key = Annotated[str, typer.Argument(metavar="KEY", help="ID of the key, or a unique ID prefix.")]
Wide = Annotated[bool, typer.Option("--wide", "--full", help="Show full IDs and timestamps, even if lines wrap.")]


def register(app: typer.Typer) -> None:
    """Add the `accounts` and `keys` commands to the program."""
    add(app, "accounts", account_app, former="account")
    add(app, "keys", key_app, former="key")


@command(account_app, "list", examples=("uplift-server accounts",))
def list_accounts(session: Session, limit: Limit = 50, wide: Wide = False) -> None:
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
            empty="No accounts yet. To create one: uplift-server accounts create NAME --email ADDRESS",
            wide=wide,
        )


@command(account_app, "show", examples=("uplift-server accounts acc_0197f0c2",))
def show_account(session: Session, account: NamedAccount) -> None:
    """Show an account."""
    with reach(session.config()) as client:
        found = lookup.account(client, account)
    session.output.streams = True
    session.output.fields(found)


@command(
    account_app, "create", examples=("uplift-server accounts create 'Rapids Academy' --email data@rapids.example",)
)
def create_account(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the account.")],
    email: Annotated[
        list[str],
        typer.Option(
            "--email",
            metavar="ADDRESS",
            help="Email address that receives notifications about failing endpoints. Repeatable.",
        ),
    ],
    uid: Uid = None,
    metadata: Metadata = None,
) -> None:
    """Create an account.

    An account owns endpoints and receives events. This command creates the SQLite file or the PostgreSQL tables if they
    do not exist.
    """
    given = {"name": name, "contact_emails": email, "uid": uid, "metadata": metadata_of(metadata)}
    body = {field: value for field, value in given.items() if value is not None}
    names = {"name": "the name", "contact_emails": "--email", **OWN_DATA_OPTIONS}
    with reach(session.config(), create=True) as client, options(**names):
        session.output.fields(client.post("/v1/accounts", body))


@command(
    account_app,
    "update",
    examples=("uplift-server accounts update acc_0197f0c2 --email data@rapids.example --email it@rapids.example",),
)
def update_account(
    session: Session,
    account: NamedAccount,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="New name.")] = None,
    email: Annotated[
        list[str] | None,
        typer.Option(
            "--email",
            metavar="ADDRESS",
            help="New email address for notifications about failing endpoints. Repeatable. Replaces all addresses.",
        ),
    ] = None,
    uid: Uid = None,
    metadata: Metadata = None,
) -> None:
    """Update an account. If you omit an option, its field stays unchanged."""
    given = {"name": name, "contact_emails": email, "uid": uid, "metadata": metadata_of(metadata)}
    body = {field: value for field, value in given.items() if value is not None}
    if not body:
        raise CliError("nothing to update", "add at least one option", ExitCode.USAGE)
    names = {"name": "--name", "contact_emails": "--email", **OWN_DATA_OPTIONS}
    with reach(session.config()) as client, options(**names):
        session.output.fields(client.patch(lookup.account_path(client, account), body))


@command(account_app, "delete", examples=("uplift-server accounts delete acc_0197f0c2 --yes",))
def delete_account(
    session: Session,
    account: NamedAccount,
    yes: Annotated[bool, typer.Option("--yes", help="Confirm the deletion.")] = False,
) -> None:
    """Delete an account with its endpoints, keys and members.

    The server stops sending the account's deliveries. You cannot undo the deletion.
    """
    with reach(session.config()) as client:
        found = lookup.account(client, account)
        if not yes:
            raise CliError(
                f"the command deletes {found['id']} ({found['name']}) with its endpoints, keys and members",
                "to confirm, repeat the command with --yes",
                ExitCode.USAGE,
            )
        client.delete(f"/v1/accounts/{segment(found['id'])}")
        session.output.fields({"id": found["id"], "deleted": True})


@command(key_app, "list", examples=("uplift-server keys --account 'Rapids Academy'", "uplift-server keys --service"))
def list_keys(
    session: Session, account: KeyOwner = None, service: Service = False, limit: Limit = 50, wide: Wide = False
) -> None:
    """List an account's API keys, or the service keys.

    The list shows only the last characters of each key.
    """
    _check_owner(session, account, service=service)
    owner = "--service" if service else "--account ACCOUNT"
    with reach(session.config()) as client:
        session.output.rows(
            client.items(_keys_path(client, account), limit=limit),
            [
                Column("id", "KEY", "id"),
                Column("name", "NAME", gives=True),
                Column("ends_with", "ENDS WITH"),
                Column("scopes", "SCOPES", folds=True),
                Column("created_at", "CREATED", "timestamp"),
                Column("expires_at", "EXPIRES", "timestamp"),
            ],
            empty=f"No keys yet. To create one: uplift-server keys create {owner}",
            wide=wide,
        )


@command(
    key_app,
    "create",
    examples=(
        "uplift-server keys create --account acc_0197f0c2",
        "uplift-server keys create --account acc_0197f0c2 --scopes events:read,deliveries:read --name reports",
        "uplift-server keys create --service --name capture --scopes events:write --expires-at 2027-01-31T00:00:00Z",
        "uplift-server keys create",
    ),
)
def create_key(
    session: Session,
    account: Annotated[
        str | None,
        typer.Option(
            "--account",
            metavar="ACCOUNT",
            help="ID, uid or name of the account, or a unique ID prefix. Without --account and --service, the command"
            " generates an operator key.",
        ),
    ] = None,
    service: Annotated[
        bool, typer.Option("--service", help="Create a service key. Within its scopes, the key acts for all accounts.")
    ] = False,
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="Name of the key, such as its purpose.")
    ] = "command line",
    scopes: Annotated[
        list[str] | None,
        typer.Option(
            "--scopes",
            metavar="SCOPES",
            help="Scopes, separated by commas. Required with --service. Default for an account: all scopes except"
            " events:write and secrets:read.",
        ),
    ] = None,
    expires_at: Annotated[
        str | None,
        typer.Option("--expires-at", metavar="TIMESTAMP", help="Time when the key expires (ISO 8601). Default: never."),
    ] = None,
) -> None:
    """Create an API key and print it once.

    An account key or a service key works immediately. The server does not store a generated operator key: to use this
    key, set UPLIFT_OPERATOR_KEY to the key and restart the server.
    """
    if account is None and not service:
        if scopes or expires_at:
            raise CliError(
                "operator keys have no scopes and no expiry",
                "add --account or --service, or omit --scopes and --expires-at",
                ExitCode.USAGE,
            )
        session.output.fields(
            {"key": new_operator_key(), "use": "set UPLIFT_OPERATOR_KEY to this key, and restart the server"}
        )
        return
    _check_owner(session, account, service=service)
    body: dict[str, object] = {"name": name}
    if scopes:
        body["scopes"] = [each.strip() for text in scopes for each in text.split(",")]
    if expires_at is not None:
        body["expires_at"] = expires_at
    with reach(session.config()) as client, options(name="--name", scopes="--scopes", expires_at="--expires-at"):
        session.output.fields(client.post(_keys_path(client, account), body))
    session.output.note("Store the key now. You cannot view it again.")


@command(
    key_app,
    "update",
    examples=(
        "uplift-server keys update key_0197f0c2 --account acc_0197f0c2 --name 'old server'",
        "uplift-server keys update key_0197f0c2 --service --expires-at 2027-01-31T00:00:00Z",
    ),
)
def update_key(
    session: Session,
    key: Key,
    account: KeyOwner = None,
    service: Service = False,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Name of the key, such as its purpose.")
    ] = None,
    expires_at: Annotated[
        str | None,
        typer.Option(
            "--expires-at",
            metavar="TIMESTAMP",
            help="Time when the key expires (ISO 8601), or the word never for a key that does not expire.",
        ),
    ] = None,
) -> None:
    """Update an API key's name or expiry."""
    _check_owner(session, account, service=service)
    body: dict[str, object] = {} if name is None else {"name": name}
    if expires_at is not None:
        body["expires_at"] = None if expires_at == "never" else expires_at
    if not body:
        raise CliError("nothing to update", "add --name or --expires-at", ExitCode.USAGE)
    with reach(session.config()) as client, options(name="--name", expires_at="--expires-at"):
        path = _keys_path(client, account)
        found = lookup.key(client, key, path)
        session.output.fields(client.patch(f"{path}/{segment(found['id'])}", body))


@command(
    key_app,
    "revoke",
    examples=(
        "uplift-server keys revoke key_0197f0c2 --account acc_0197f0c2",
        "uplift-server keys revoke key_0197f0c2 --service",
    ),
)
def revoke_key(session: Session, key: Key, account: KeyOwner = None, service: Service = False) -> None:
    """Revoke an API key.

    The server rejects all later calls with this key.
    """
    _check_owner(session, account, service=service)
    with reach(session.config()) as client:
        path = _keys_path(client, account)
        found = lookup.key(client, key, path)
        client.delete(f"{path}/{segment(found['id'])}")
        session.output.fields({"id": found["id"], "revoked": True})


def _check_owner(session: Session, account: str | None, *, service: bool) -> None:
    """Raise CliError unless the options select either one account or the service keys."""
    if (account is None) == service:
        return
    remedy = "add --account ACCOUNT for the keys of an account, or --service for service keys"
    if account is None and (choices := session.choices("ACCOUNT")):
        remedy = f"{remedy}. {choices.rstrip('.')}"
    raise CliError("the command needs either --account or --service", remedy, ExitCode.USAGE)


def _keys_path(client: Calls, account: str | None) -> str:
    return "/v1/keys" if account is None else f"{lookup.account_path(client, account)}/keys"
