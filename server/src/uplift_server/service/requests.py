"""Optional parts of a request: fields that may be absent, and the `Idempotency-Key` header."""

from collections.abc import Callable
from enum import Enum
from typing import Final, NamedTuple, TypeVar

from uplift_server.core.events.idempotency import check_key
from uplift_server.core.problems import Problem
from uplift_server.store import idempotency
from uplift_server.store.contract import Transaction

T = TypeVar("T")


class Unset(Enum):
    """The type of UNSET."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET
"""The value of a field that is absent from the request."""


def given(value: T | Unset) -> T:
    """Return the value of a required field."""
    assert not isinstance(value, Unset), "a missing field was rejected before"
    return value


def given_or(value: T | Unset, default: T) -> T:
    """Return the value of a field, or the default if the field is absent."""
    return default if isinstance(value, Unset) else value


def given_or_none(value: T | Unset | None) -> T | None:
    """Return the value of a field, or None if the field is absent."""
    return None if isinstance(value, Unset) else value


class IdempotencyKey(NamedTuple):
    """The `Idempotency-Key` of a request, and the SHA-256 of its body."""

    text: str
    body_digest: bytes


def idempotent_request(key: IdempotencyKey | None, account_seq: int, kind: str) -> idempotency.Request | None:
    """Return the request as the store records it; None without an `Idempotency-Key`."""
    return None if key is None else idempotency.Request(account_seq, key.text, kind, key.body_digest)


def create_once(
    request: idempotency.Request | None,
    object_id: bytes,
    now: int,
    create: Callable[[Transaction], T],
    load: Callable[[Transaction, bytes], T | None],
) -> Callable[[Transaction], tuple[T, bool]]:
    """Return a transaction that creates an object, or loads the one that an earlier request with the key created."""
    return lambda connection: idempotency.create_once(
        connection,
        request,
        object_id=object_id,
        now=now,
        create=lambda: create(connection),
        load=lambda earlier: load(connection, earlier),
    )


def check_idempotency_key(key: IdempotencyKey | None) -> list[Problem]:
    """Return the problem of an `Idempotency-Key`, if it has one."""
    wrong = None if key is None else check_key(key.text, "Idempotency-Key")
    return [] if wrong is None else [wrong]
