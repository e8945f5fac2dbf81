"""Stored invitations to accounts. An invitation is deleted when it is accepted or withdrawn."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.people.people import INVITATIONS_PER_ACCOUNT_MAX
from uplift_server.core.security.rights import Role
from uplift_server.store import accounts
from uplift_server.store.errors import Conflict
from uplift_server.store.pages import PageRequest
from uplift_server.store.records import Invitation, Page
from uplift_server.store.schema_people import invitations


def create(
    connection: Connection,
    *,
    invitation_id: bytes,
    account_seq: int,
    email: str,
    role: Role,
    invited_by: str,
    proves: bool,
    expires_at: int,
    now: int,
) -> Invitation:
    """Store an invitation. The account must not have a pending invitation for this email address.

    Raises Conflict if the account was deleted or has too many pending invitations.
    """
    accounts.require(connection, account_seq)
    open_ones = sa.select(sa.func.count()).where(
        invitations.c.account_seq == account_seq, invitations.c.expires_at > now
    )
    if connection.scalars(open_ones).one() >= INVITATIONS_PER_ACCOUNT_MAX:
        text = f"The account has {INVITATIONS_PER_ACCOUNT_MAX} pending invitations, which is the limit. Withdraw one."
        raise Conflict(text)
    values = {"account_seq": account_seq, "email": email, "invited_by": invited_by, "proves": proves}
    query = sa.insert(invitations).values(
        id=invitation_id, role=int(role), created_at=now, expires_at=expires_at, **values
    )
    seq = connection.scalars(query.returning(invitations.c.seq)).one()
    return Invitation(seq, invitation_id, account_seq, email, role, invited_by, proves, now, expires_at)


def get(connection: Connection, invitation_id: bytes, *, now: int) -> Invitation | None:
    """Return the invitation with this ID, or None if it does not exist or has expired. `now` is in Unix ms."""
    query = sa.select(invitations).where(invitations.c.id == invitation_id, invitations.c.expires_at > now)
    row = connection.execute(query).first()
    return None if row is None else _invitation(row)


def page(connection: Connection, account_seq: int, request: PageRequest, *, now: int) -> Page[Invitation]:
    """List a page of an account's pending invitations."""
    query = sa.select(invitations).where(invitations.c.account_seq == account_seq, invitations.c.expires_at > now)
    query = request.of(query, invitations.c.seq)
    return request.page([_invitation(row) for row in connection.execute(query)], lambda each: (each.seq,))


def list_for_email(connection: Connection, email: str, *, now: int, limit: int) -> list[Invitation]:
    """List the pending invitations for an email address (in lower case), oldest account first."""
    query = sa.select(invitations).where(invitations.c.email == email, invitations.c.expires_at > now)
    rows = connection.execute(query.order_by(invitations.c.account_seq).limit(limit))
    return [_invitation(row) for row in rows]


def consume(connection: Connection, invitation_id: bytes, *, now: int) -> Invitation | None:
    """Delete an invitation that was accepted or withdrawn.

    Return the invitation, or None if it does not exist or has expired.
    """
    found = get(connection, invitation_id, now=now)
    if found is not None:
        connection.execute(sa.delete(invitations).where(invitations.c.seq == found.seq))
    return found


def remove(connection: Connection, account_seq: int, email: str, *, now: int) -> Role | None:
    """Delete the account's invitation for an email address.

    Return the invitation's role, or None if the invitation does not exist or has expired.
    """
    own = sa.and_(invitations.c.account_seq == account_seq, invitations.c.email == email)
    query = sa.delete(invitations).where(own).returning(invitations.c.role, invitations.c.expires_at)
    row = connection.execute(query).first()
    return None if row is None or row.expires_at <= now else Role(row.role)


def _invitation(row: sa.Row[Any]) -> Invitation:
    return Invitation(
        seq=row.seq,
        id=row.id,
        account_seq=row.account_seq,
        email=row.email,
        role=Role(row.role),
        invited_by=row.invited_by,
        proves=row.proves,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )
