"""Requests that create, and how they are recognised when they come again."""

from typing import NamedTuple

from uplift_server.core.events.idempotency import check_key
from uplift_server.core.problems import Problem
from uplift_server.store import idempotency


class Repeat(NamedTuple):
    """How a request that creates is recognised when it comes again."""

    key: str
    """Its `Idempotency-Key`."""
    digest: bytes
    """The SHA-256 of its body."""


def request_of(repeat: Repeat | None, account_seq: int, kind: str) -> idempotency.Request | None:
    """A creating request as the store remembers it."""
    return None if repeat is None else idempotency.Request(account_seq, repeat.key, kind, repeat.digest)


def check_repeat(repeat: Repeat | None) -> list[Problem]:
    """What is wrong with an `Idempotency-Key`, if anything."""
    wrong = None if repeat is None else check_key(repeat.key, "Idempotency-Key")
    return [] if wrong is None else [wrong]
