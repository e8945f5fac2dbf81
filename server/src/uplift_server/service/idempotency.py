"""Idempotent creation of objects: repeated requests with the same `Idempotency-Key` create one object."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from uplift_server.core.events.idempotency import check_key
from uplift_server.core.problems import Problem
from uplift_server.store import idempotency
from uplift_server.store.contract import Transaction

T = TypeVar("T")


class IdempotencyKey(NamedTuple):
    """The `Idempotency-Key` of a request, and the SHA-256 digest of the request body."""

    text: str
    body_digest: bytes


def check_idempotency_key(key: IdempotencyKey | None) -> Problem | None:
    """Return a problem if the `Idempotency-Key` is invalid."""
    return None if key is None else check_key(key.text, "Idempotency-Key")


def idempotent_request(key: IdempotencyKey | None, account_seq: int, kind: str) -> idempotency.Request | None:
    """Return the properties by which the store recognizes a repeated request.

    Return None if the request has no `Idempotency-Key`.
    """
    return None if key is None else idempotency.Request(account_seq, key.text, kind, key.body_digest)


def create_once(
    request: idempotency.Request | None,
    object_id: bytes,
    now: int,
    create: Callable[[Transaction], T],
    load: Callable[[Transaction, bytes], T | None],
) -> Callable[[Transaction], tuple[T, bool]]:
    """Return a function that creates an object within a transaction, but only once for each key.

    If an earlier request with the key created the object, the function loads it. The function returns the object, and
    whether an earlier request created it.
    """
    return lambda connection: idempotency.create_once(
        connection,
        request,
        object_id=object_id,
        now=now,
        create=lambda: create(connection),
        load=lambda earlier: load(connection, earlier),
    )
