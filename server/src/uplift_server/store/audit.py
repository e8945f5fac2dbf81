"""The audit log. Add each entry in the same transaction as the action that it records."""

import json
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.people.audit import Actor, ActorKind, AuditEntry
from uplift_server.store.pages import PageRequest, numbers_between, window_end
from uplift_server.store.records import Page
from uplift_server.store.schema import accounts, audit_log

WINDOW_ROWS: Final = 10_000
"""The maximum number of entries to scan for one page. If few of them match, the page is shorter than requested."""
_KINDS: Final = {kind.text: kind for kind in ActorKind}


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Filters for the audit log. Timestamps are exclusive bounds in Unix ms."""

    actor: str | None = None
    """The ID of an actor, or a kind of actor, such as `operator`."""
    action: str | None = None
    created_after: int | None = None
    created_before: int | None = None
    subject: str | None = None
    """The ID or name of the object that the action affected."""


def add(connection: Connection, entry: AuditEntry) -> None:
    """Add an entry to the audit log."""
    connection.execute(
        sa.insert(audit_log).values(
            account_seq=entry.account_seq,
            at=entry.at,
            actor_kind=int(entry.actor.kind),
            actor_id=entry.actor.id,
            actor_name=entry.actor.name,
            action=entry.action,
            subject=entry.subject,
            details=json.dumps(dict(entry.details)),
            address=entry.actor.address,
        )
    )


def page(
    connection: Connection, account_seq: int | None, wanted: AuditFilter, request: PageRequest
) -> Page[AuditEntry]:
    """Return a page of entries for an account, or for all accounts."""
    bounds = numbers_between(connection, audit_log.c.at, after=wanted.created_after, before=wanted.created_before)
    low, high = request.narrowed(*bounds)
    own = [] if account_seq is None else [audit_log.c.account_seq == account_seq]
    seq, up = audit_log.c.seq, request.reads_up
    # Search a window of rows, because no index contains the actor, action or subject.
    end = window_end(connection, seq, audit_log, own, low=low, high=high, rows=WINDOW_ROWS, up=up)
    if end is not None:
        low, high = (low, end) if up else (end, high)
    keys = (
        sa.select(seq)
        .where(seq.between(low, high), *own, *_row_conditions(wanted))
        .order_by(request.ordered(seq))
        .limit(request.limit + 1)
        .subquery("page")
    )
    query = (
        sa.select(audit_log, accounts.c.id.label("account_id"))
        .select_from(
            keys.join(audit_log, audit_log.c.seq == keys.c.seq).outerjoin(
                accounts, accounts.c.seq == audit_log.c.account_seq
            )
        )
        .order_by(request.ordered(seq))
    )
    read_to = None if end is None else (end,)
    return request.page([_entry(row) for row in connection.execute(query)], lambda entry: (entry.seq,), read_to)


def _row_conditions(wanted: AuditFilter) -> list[sa.ColumnElement[bool]]:
    """Return the conditions for the fields of the filter."""
    conditions = []
    if wanted.actor in _KINDS:
        conditions.append(audit_log.c.actor_kind == int(_KINDS[wanted.actor]))
    elif wanted.actor is not None:
        conditions.append(audit_log.c.actor_id == wanted.actor)
    if wanted.action is not None:
        conditions.append(audit_log.c.action == wanted.action)
    if wanted.subject is not None:
        conditions.append(audit_log.c.subject == wanted.subject)
    if wanted.created_after is not None:
        conditions.append(audit_log.c.at > wanted.created_after)
    if wanted.created_before is not None:
        conditions.append(audit_log.c.at < wanted.created_before)
    return conditions


def _entry(row: sa.Row[Any]) -> AuditEntry:
    return AuditEntry(
        account_seq=row.account_seq,
        at=row.at,
        actor=Actor(ActorKind(row.actor_kind), row.actor_name, row.actor_id, row.address),
        action=row.action,
        subject=row.subject,
        details=json.loads(row.details),
        seq=row.seq,
        account_id=row.account_id,
    )
