"""Service keys. The table contains only digests of the keys."""

from collections.abc import Callable, Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store.pages import PageRequest
from uplift_server.store.records import Page, ServiceKey
from uplift_server.store.schema import service_keys

_LIVE = service_keys.c.revoked_at.is_(None)


def create(
    connection: Connection,
    *,
    key_id: bytes,
    name: str,
    digest: bytes,
    ends_with: str,
    scopes: frozenset[str],
    expires_at: int | None,
    now: int,
) -> ServiceKey:
    """Store a new service key. Return the key."""
    values = {"id": key_id, "name": name, "digest": digest, "ends_with": ends_with, "expires_at": expires_at}
    query = sa.insert(service_keys).values(scopes=" ".join(sorted(scopes)), created_at=now, **values)
    seq = connection.scalars(query.returning(service_keys.c.seq)).one()
    return ServiceKey(seq, key_id, name, digest, ends_with, scopes, now, expires_at)


def get(connection: Connection, key_id: bytes, *, lock: bool = False) -> ServiceKey | None:
    """Return the service key with this ID, unless the key was revoked. With `lock`, lock its row for an update."""
    query = sa.select(service_keys).where(service_keys.c.id == key_id, _LIVE)
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else _key(row)


def page(connection: Connection, request: PageRequest) -> Page[ServiceKey]:
    """List a page of service keys, excluding revoked keys."""
    query = request.of(sa.select(service_keys).where(_LIVE), service_keys.c.seq)
    return request.page([_key(row) for row in connection.execute(query)], lambda key: (key.seq,))


def list_live(connection: Connection, *, after: int = 0, limit: int = 1000) -> list[ServiceKey]:
    """List the service keys, oldest first, excluding revoked keys. `after` is the last `seq` of the previous page."""
    query = sa.select(service_keys).where(_LIVE, service_keys.c.seq > after).order_by(service_keys.c.seq).limit(limit)
    return [_key(row) for row in connection.execute(query)]


def find(connection: Connection, seqs: Collection[int]) -> list[ServiceKey]:
    """Return the service keys with these numbers, in any order, excluding revoked keys."""
    query = sa.select(service_keys).where(service_keys.c.seq.in_(seqs), _LIVE)
    return [_key(row) for row in connection.execute(query)]


def update(connection: Connection, key_id: bytes, change: Callable[[ServiceKey], ServiceKey]) -> ServiceKey | None:
    """Update the name and the expiry of a key. Return the updated key, or None if it does not exist."""
    found = get(connection, key_id, lock=True)
    if found is None:
        return None
    changed = change(found)
    values = {"name": changed.name, "expires_at": changed.expires_at}
    connection.execute(sa.update(service_keys).where(service_keys.c.seq == changed.seq).values(values))
    return changed


def revoke(connection: Connection, key_id: bytes, *, now: int) -> ServiceKey | None:
    """Revoke a service key. Return the key, or None if it does not exist or was already revoked."""
    change = sa.update(service_keys).where(service_keys.c.id == key_id, _LIVE).values(revoked_at=now)
    row = connection.execute(change.returning(service_keys)).first()
    return None if row is None else _key(row)


def _key(row: sa.Row[Any]) -> ServiceKey:
    return ServiceKey(
        seq=row.seq,
        id=row.id,
        name=row.name,
        digest=row.digest,
        ends_with=row.ends_with,
        scopes=frozenset(row.scopes.split()),
        created_at=row.created_at,
        expires_at=row.expires_at,
    )
