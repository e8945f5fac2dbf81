"""API keys for accounts and operators. Operator keys have no account. The table contains only digests of the keys."""

from collections.abc import Callable, Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store import accounts
from uplift_server.store.pages import PageRequest
from uplift_server.store.records import ApiKey, Page
from uplift_server.store.schema import api_keys

_LIVE = api_keys.c.revoked_at.is_(None)


def create(
    connection: Connection,
    *,
    key_id: bytes,
    account_seq: int | None,
    name: str,
    digest: bytes,
    ends_with: str,
    scopes: frozenset[str],
    now: int,
    expires_at: int | None = None,
) -> ApiKey:
    """Store a new key. Raises Conflict if its account was deleted."""
    if account_seq is not None:
        accounts.require(connection, account_seq)
    query = sa.insert(api_keys).values(
        id=key_id,
        account_seq=account_seq,
        name=name,
        digest=digest,
        ends_with=ends_with,
        scopes=" ".join(sorted(scopes)),
        created_at=now,
        expires_at=expires_at,
    )
    return ApiKey(
        seq=connection.scalars(query.returning(api_keys.c.seq)).one(),
        id=key_id,
        account_seq=account_seq,
        name=name,
        digest=digest,
        ends_with=ends_with,
        scopes=scopes,
        created_at=now,
        expires_at=expires_at,
    )


def get(connection: Connection, account_seq: int | None, key_id: bytes) -> ApiKey | None:
    """Return the key with this ID, unless the key was revoked. If `account_seq` is None, search the operator keys."""
    query = sa.select(api_keys).where(api_keys.c.id == key_id, _of(account_seq), _LIVE)
    row = connection.execute(query).first()
    return None if row is None else _key(row)


def page(connection: Connection, account_seq: int | None, request: PageRequest) -> Page[ApiKey]:
    """List a page of an account's keys, or of operator keys, excluding revoked keys."""
    query = request.of(sa.select(api_keys).where(_of(account_seq), _LIVE), api_keys.c.seq)
    return request.page([_key(row) for row in connection.execute(query)], lambda key: (key.seq,))


def list_live(connection: Connection, *, after: int = 0, limit: int = 1000) -> list[ApiKey]:
    """List the keys of all accounts and operators, oldest first, excluding revoked keys.

    `after` is the last `seq` of the previous page.
    """
    query = sa.select(api_keys).where(_LIVE, api_keys.c.seq > after).order_by(api_keys.c.seq).limit(limit)
    return [_key(row) for row in connection.execute(query)]


def find(connection: Connection, seqs: Collection[int]) -> list[ApiKey]:
    """Return the keys that have these numbers and are not revoked, in any order."""
    query = sa.select(api_keys).where(api_keys.c.seq.in_(seqs), _LIVE)
    return [_key(row) for row in connection.execute(query)]


def update(
    connection: Connection, account_seq: int | None, key_id: bytes, change: Callable[[ApiKey], ApiKey]
) -> ApiKey | None:
    """Update the name and the expiry of a key. Return the updated key, or None if it does not exist."""
    query = sa.select(api_keys).where(api_keys.c.id == key_id, _of(account_seq), _LIVE).with_for_update()
    row = connection.execute(query).first()
    if row is None:
        return None
    changed = change(_key(row))
    values = {"name": changed.name, "expires_at": changed.expires_at}
    connection.execute(sa.update(api_keys).where(api_keys.c.seq == changed.seq).values(values))
    return changed


def revoke(connection: Connection, account_seq: int | None, key_id: bytes, *, now: int) -> ApiKey | None:
    """Revoke a key. Return the key, or None if it does not exist or was already revoked."""
    change = sa.update(api_keys).where(api_keys.c.id == key_id, _of(account_seq), _LIVE).values(revoked_at=now)
    row = connection.execute(change.returning(api_keys)).first()
    return None if row is None else _key(row)


def _of(account_seq: int | None) -> sa.ColumnElement[bool]:
    return api_keys.c.account_seq.is_(None) if account_seq is None else api_keys.c.account_seq == account_seq


def _key(row: sa.Row[Any]) -> ApiKey:
    return ApiKey(
        seq=row.seq,
        id=row.id,
        account_seq=row.account_seq,
        name=row.name,
        digest=row.digest,
        ends_with=row.ends_with,
        scopes=frozenset(row.scopes.split()),
        created_at=row.created_at,
        expires_at=row.expires_at,
    )
