"""Creates, reads, updates and deletes accounts in the database."""

import json
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store import locks, people
from uplift_server.store.encryption import ERASED
from uplift_server.store.errors import Conflict
from uplift_server.store.pages import PageRequest
from uplift_server.store.records import Account, Page
from uplift_server.store.schema import accounts, api_keys, endpoints

_LIVE = accounts.c.deleted_at.is_(None)


class Deleted(NamedTuple):
    """A deleted account, with the keys and endpoints that were deleted with it."""

    account: Account
    key_digests: list[bytes]
    endpoint_seqs: list[int]


def create(
    connection: Connection,
    *,
    account_id: bytes,
    name: str,
    contact_emails: tuple[str, ...],
    now: int,
    uid: str | None = None,
    metadata: str | None = None,
) -> Account:
    """Store a new account. Raises Conflict if another account has the uid."""
    if uid is not None:
        _require_free_uid(connection, uid)
    query = sa.insert(accounts).values(
        id=account_id,
        name=name,
        contact_emails=json.dumps(contact_emails),
        created_at=now,
        updated_at=now,
        uid=uid,
        metadata=metadata,
    )
    return _account(connection.execute(query.returning(*accounts.c)).one())


def lock_uids(connection: Connection) -> None:
    """Lock the uids of all accounts until the transaction ends (see `store.locks`)."""
    locks.take(connection, locks.ACCOUNT_UIDS)


def get_by_uid(connection: Connection, uid: str) -> Account | None:
    """Return the account with this uid, unless it was deleted.

    Call `lock_uids` first if the result must stay valid until the transaction ends.
    """
    row = connection.execute(sa.select(accounts).where(accounts.c.uid == uid, _LIVE)).first()
    return None if row is None else _account(row)


def _require_free_uid(connection: Connection, uid: str) -> None:
    """Raise Conflict if an account has this uid."""
    lock_uids(connection)
    if get_by_uid(connection, uid) is not None:
        raise Conflict(f"Another account has the uid {uid}. Use another uid.")


def get(connection: Connection, account_id: bytes, *, lock: bool = False) -> Account | None:
    """Return the account with this ID, unless it was deleted."""
    query = sa.select(accounts).where(accounts.c.id == account_id, _LIVE)
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else _account(row)


def get_including_deleted(connection: Connection, account_id: bytes) -> Account | None:
    """Return the account with this ID. Include deleted accounts that retention has not yet removed."""
    row = connection.execute(sa.select(accounts).where(accounts.c.id == account_id)).first()
    return None if row is None else _account(row)


def lock(connection: Connection, seq: int) -> bool:
    """Lock an account until the transaction ends (see `store.locks`). Return False if it was deleted."""
    query = sa.select(accounts.c.seq).where(accounts.c.seq == seq, _LIVE).with_for_update()
    return connection.execute(query).first() is not None


def require(connection: Connection, seq: int) -> None:
    """Lock an account until the transaction ends. Raises Conflict if the account was deleted.

    Call this function before you count the account's objects and add another one, such as an endpoint. Otherwise,
    another transaction could add an object after the count.
    """
    if not lock(connection, seq):
        raise Conflict("The account was deleted. Use another account.")


def page(connection: Connection, request: PageRequest) -> Page[Account]:
    """Return a page of accounts."""
    query = request.of(sa.select(accounts).where(_LIVE), accounts.c.seq)
    return request.page([_account(row) for row in connection.execute(query)], lambda account: (account.seq,))


def list_live(connection: Connection, *, after: int = 0, limit: int = 1000) -> list[Account]:
    """List accounts that are not deleted, oldest first. `after` is the last `seq` of the previous page."""
    query = sa.select(accounts).where(_LIVE, accounts.c.seq > after).order_by(accounts.c.seq).limit(limit)
    return [_account(row) for row in connection.execute(query)]


def find(connection: Connection, seqs: Collection[int]) -> list[Account]:
    """Return the accounts with these sequence numbers, in any order. Exclude deleted accounts."""
    query = sa.select(accounts).where(accounts.c.seq.in_(seqs), _LIVE)
    return [_account(row) for row in connection.execute(query)]


def update(connection: Connection, account_id: bytes, change: Callable[[Account], Account]) -> Account | None:
    """Update the account fields that users can set. Return the updated account, or None if it does not exist.

    `updated_at` increases with each update. If the update can change the uid, call `lock_uids` first. Raises Conflict
    if another account has the uid.
    """
    stored = get(connection, account_id, lock=True)
    if stored is None:
        return None
    account = change(stored)
    if account == stored:
        return stored
    account = replace(account, updated_at=max(account.updated_at, stored.updated_at + 1))
    if account.uid is not None and account.uid != stored.uid:
        _require_free_uid(connection, account.uid)
    query = sa.update(accounts).where(accounts.c.seq == account.seq)
    connection.execute(
        query.values(
            name=account.name,
            contact_emails=json.dumps(account.contact_emails),
            updated_at=account.updated_at,
            uid=account.uid,
            metadata=account.metadata,
        )
    )
    return account


def delete(connection: Connection, account_id: bytes, *, now: int) -> Deleted | None:
    """Delete an account with its keys, endpoints and members. Return None if it does not exist.

    Events and deliveries are kept until their retention period ends. The delivery engine cancels the pending
    deliveries.
    """
    account = get(connection, account_id, lock=True)
    if account is None:
        return None
    connection.execute(sa.update(accounts).where(accounts.c.seq == account.seq).values(deleted_at=now))
    keys = sa.and_(api_keys.c.account_seq == account.seq, api_keys.c.revoked_at.is_(None))
    digests = list(connection.scalars(sa.select(api_keys.c.digest).where(keys)))
    connection.execute(sa.update(api_keys).where(keys).values(revoked_at=now))
    own = sa.and_(endpoints.c.account_seq == account.seq, endpoints.c.deleted_at.is_(None))
    seqs = list(connection.scalars(sa.select(endpoints.c.seq).where(own)))
    connection.execute(sa.update(endpoints).where(own).values(deleted_at=now, **ERASED))
    people.remove_from_account(connection, account.seq)
    return Deleted(account, digests, seqs)


def _account(row: sa.Row[Any]) -> Account:
    return Account(
        seq=row.seq,
        id=row.id,
        name=row.name,
        contact_emails=tuple(json.loads(row.contact_emails)),
        created_at=row.created_at,
        updated_at=row.updated_at,
        uid=row.uid,
        metadata=row.metadata,
    )
