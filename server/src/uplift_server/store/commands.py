"""Commands that one process stores and another process executes.

A command cancels or resends a delivery, starts an attempt for a delivery that is waiting to be resent, or tests an
endpoint.

The transaction that executes a command stores its result, so no command is executed twice.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.limits import ACCOUNT_COMMANDS_WAITING_MAX, COMMANDS_WAITING_MAX
from uplift_server.core.people.audit import Actor, ActorKind, AuditEntry
from uplift_server.store.errors import StoreError, Unavailable
from uplift_server.store.idempotency import Request
from uplift_server.store.schema_processes import commands

RESULT_KEPT_MS: Final = 60_000
"""How long the database keeps a command's result, in ms.

A test or start command that no process has executed expires after the same time.
"""


class TooManyCommands(Unavailable):
    """Too many commands are stored, in total or for the account.

    The limits include the commands that were executed within the last minute.
    """


class AlreadyExecuted(StoreError):
    """The command already has a result."""


class CommandKind(StrEnum):
    """The action that a command requests."""

    CANCEL = "cancel"
    RESEND = "resend"
    START = "start"
    """Immediately attempt a delivery that is waiting to be resent."""
    TEST = "test"


KEPT_UNTIL_EXECUTED: Final = (CommandKind.CANCEL, CommandKind.RESEND)
"""The kinds of commands that do not expire before execution, because the caller received a success response."""


@dataclass(frozen=True, slots=True)
class NewTest:
    """A test event to store when the command is executed."""

    event_id: bytes
    type_seq: int
    request: Request | None
    wrong_signature: bool = False
    """Whether to sign the request with a wrong key on purpose."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command that one process stores and another process executes.

    The process that executes the command adds `entry` to the audit log with the time of execution.
    """

    kind: CommandKind
    account_seq: int
    endpoint_seq: int
    entry: AuditEntry
    event_seq: int = 0
    test: NewTest | None = None


class PendingCommand(NamedTuple):
    """A command without a result."""

    seq: int
    command: Command
    created_at: int
    """The time when the command was stored (Unix ms)."""


class Result(NamedTuple):
    """The result of a command, or the reason for its rejection."""

    error: str | None = None
    text: str = ""
    event_id: bytes | None = None
    """The ID of the test event. If `repeated` is true, an earlier request created this event."""
    repeated: bool = False
    is_executed: bool = True
    """Whether a process has executed the command. If false, the command is stored for later execution."""


_LIST_PENDING: Final = (
    sa.select(commands)
    .where(
        sa.or_(
            sa.and_(commands.c.result.is_(None), commands.c.kind.in_([kind.value for kind in CommandKind])),
            commands.c.expires_at <= sa.bindparam("now"),
        )
    )
    .order_by(commands.c.seq)
)


def add(connection: Connection, command: Command, *, now: int) -> int:
    """Store a command. Return its number. Raises TooManyCommands."""
    own = sa.func.sum(sa.case((commands.c.account_seq == command.account_seq, 1), else_=0))
    total, of_account = connection.execute(sa.select(sa.func.count(), own).select_from(commands)).one()
    if total >= COMMANDS_WAITING_MAX or (of_account or 0) >= ACCOUNT_COMMANDS_WAITING_MAX:
        raise TooManyCommands("too many commands are waiting for the workers")
    query = sa.insert(commands).values(
        kind=command.kind,
        account_seq=command.account_seq,
        endpoint_seq=command.endpoint_seq,
        event_seq=command.event_seq,
        arguments=_arguments(command),
        created_at=now,
        expires_at=None if command.kind in KEPT_UNTIL_EXECUTED else now + RESULT_KEPT_MS,
    )
    return int(connection.scalars(query.returning(commands.c.seq)).one())


def list_pending(connection: Connection, *, now: int) -> tuple[list[PendingCommand], bool]:
    """Return the commands without a result, oldest first, and whether `remove_expired` has rows to delete.

    Omit expired commands, and commands of kinds that this release does not support.
    """
    pending = connection.execute(_LIST_PENDING, {"now": now})
    rows = [(row, row.expires_at is not None and row.expires_at <= now) for row in pending]
    found = [PendingCommand(row.seq, _command(row), row.created_at) for row, has_expired in rows if not has_expired]
    return found, len(found) < len(rows)


def get_result(connection: Connection, seq: int) -> Result | None:
    """Return a command's result, or None if the command has no result yet or was deleted."""
    found = connection.scalar(sa.select(commands.c.result).where(commands.c.seq == seq))
    if found is None:
        return None
    error, text, event_id, repeated = json.loads(found)
    return Result(error, text, None if event_id is None else bytes.fromhex(event_id), repeated)


def finish(connection: Connection, seq: int, result: Result, *, now: int) -> None:
    """Store a command's result. The result expires after RESULT_KEPT_MS. Raises AlreadyExecuted."""
    event_id = None if result.event_id is None else result.event_id.hex()
    text = json.dumps([result.error, result.text, event_id, result.repeated])
    change = sa.update(commands).where(commands.c.seq == seq, commands.c.result.is_(None))
    if connection.execute(change.values(result=text, expires_at=now + RESULT_KEPT_MS)).rowcount == 0:
        raise AlreadyExecuted("the command has a result")


def remove_expired(connection: Connection, *, now: int) -> None:
    """Delete expired results, and commands that expired before a process executed them."""
    connection.execute(sa.delete(commands).where(commands.c.expires_at <= now))


def _arguments(command: Command) -> str:
    entry, test = command.entry, command.test
    arguments: dict[str, Any] = {
        "actor": [int(entry.actor.kind), entry.actor.name, entry.actor.id, entry.actor.address],
        "action": entry.action,
        "subject": entry.subject,
        "details": dict(entry.details),
    }
    if test is not None:
        request = test.request
        arguments |= {"event_id": test.event_id.hex(), "type_seq": test.type_seq, "request": None}
        arguments["wrong_signature"] = test.wrong_signature
        if request is not None:
            arguments["request"] = [request.account_seq, request.key, request.kind, request.digest.hex()]
    return json.dumps(arguments)


def _command(row: sa.Row[Any]) -> Command:
    arguments = json.loads(row.arguments)
    kind, *rest = arguments["actor"]
    actor = Actor(ActorKind(kind), *rest)
    action, subject, details = arguments["action"], arguments["subject"], arguments["details"]
    entry = AuditEntry(row.account_seq, row.created_at, actor, action, subject, details)
    test = None
    if "event_id" in arguments:
        test = NewTest(
            bytes.fromhex(arguments["event_id"]),
            arguments["type_seq"],
            _request(arguments["request"]),
            # Earlier releases store commands without this field.
            arguments.get("wrong_signature", False),
        )
    return Command(CommandKind(row.kind), row.account_seq, row.endpoint_seq, entry, row.event_seq, test)


def _request(given: Sequence[Any] | None) -> Request | None:
    if given is None:
        return None
    account_seq, key, kind, digest = given
    return Request(account_seq, key, kind, bytes.fromhex(digest))
