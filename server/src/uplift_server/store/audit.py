"""The audit log: who did what, when and from where. Entries are added in the transaction of what they tell."""

import json
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.audit import Actor, ActorKind, AuditEntry
from uplift_server.store.pages import page_of
from uplift_server.store.records import Page
from uplift_server.store.schema import audit_log


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries of the audit log a list shows. Instants are exclusive, in Unix ms."""

    actor: str | None = None
    """An actor's id, or the name of a kind of actor."""
    action: str | None = None
    created_after: int | None = None
    created_before: int | None = None


def add(connection: Connection, entry: AuditEntry) -> None:
    """Remember one thing that was done."""
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
    connection: Connection,
    account_seq: int | None,
    wanted: AuditFilter,
    *,
    limit: int,
    before: tuple[int, ...] | None = None,
) -> Page[AuditEntry]:
    """The account's entries (without an account: all), newest first."""
    query = sa.select(audit_log).order_by(audit_log.c.seq.desc()).limit(limit + 1)
    if account_seq is not None:
        query = query.where(audit_log.c.account_seq == account_seq)
    if before is not None:
        query = query.where(audit_log.c.seq < before[0])
    if wanted.actor is not None:
        kinds = {kind.text: kind for kind in ActorKind}
        own = audit_log.c.actor_id == wanted.actor
        query = query.where(audit_log.c.actor_kind == int(kinds[wanted.actor]) if wanted.actor in kinds else own)
    if wanted.action is not None:
        query = query.where(audit_log.c.action == wanted.action)
    if wanted.created_after is not None:
        query = query.where(audit_log.c.at > wanted.created_after)
    if wanted.created_before is not None:
        query = query.where(audit_log.c.at < wanted.created_before)
    return page_of([_entry(row) for row in connection.execute(query)], limit, lambda entry: (entry.seq,))


def _entry(row: sa.Row[Any]) -> AuditEntry:
    return AuditEntry(
        account_seq=row.account_seq,
        at=row.at,
        actor=Actor(ActorKind(row.actor_kind), row.actor_name, row.actor_id, row.address),
        action=row.action,
        subject=row.subject,
        details=json.loads(row.details),
        seq=row.seq,
    )
