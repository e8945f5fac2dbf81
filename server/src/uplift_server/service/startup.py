"""What a server does before it answers: the catalog of a fresh database, the operator's key, and filling the memory."""

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, Protocol, TypeVar

from uplift_server.core import ids
from uplift_server.core.events.catalog import EVENT_TYPES
from uplift_server.core.operations.cluster import is_heartbeat_expired
from uplift_server.core.people.audit import SYSTEM, AuditEntry
from uplift_server.service.authentication import OPERATOR_PREFIX, digest_of, ending_of
from uplift_server.service.context import ServiceContext
from uplift_server.service.keys import KEY_RANDOM_BYTES, new_key_text
from uplift_server.store import (
    accounts,
    audit,
    database_identity,
    endpoints,
    event_types,
    keys,
    processes,
    server_values,
)
from uplift_server.store.contract import Transaction
from uplift_server.store.encryption import WrongSecretKey
from uplift_server.store.records import ApiKey

LOAD_ROWS: Final = 1000
KEY_MARK: Final = "secret_key.fingerprint"
_CONFIGURED_ID: Final = bytes(16)


class KeyClaim(NamedTuple):
    """What a process says that secrets on the database are sealed with."""

    fingerprint: int
    process: int
    """Its number among those on the database."""


class _Numbered(Protocol):
    @property
    def seq(self) -> int: ...


N = TypeVar("N", bound=_Numbered)


async def begin(
    context: ServiceContext,
    key_claim: KeyClaim,
    configured_operator_key: str | None,
    keep_key: Callable[[str], None] = lambda _: None,
) -> str | None:
    """Get a database with its tables in place ready to serve, and the cache filled.

    Gives the text of the first operator key if one had to be made: it can be shown only now. `keep_key` gets it
    before it is in force, so that a start which is cut off leaves no key in force that nobody knows.

    Raises WrongSecretKey where a stored secret does not open, or a process that lives has another key to seal with, and
    the store's Unavailable.
    """
    await _seed_catalog(context)
    if await context.database.read(database_identity.get) is None:
        await context.database.write(database_identity.ensure)
    await _load(context)
    # First: a start that is refused may not have made the one key that all others go by.
    await _claim_key(context, key_claim)
    return await _ensure_operator(context, configured_operator_key, keep_key)


async def _claim_key(context: ServiceContext, key_claim: KeyClaim) -> None:
    """Note which sealing key the servers on this database have, once the cache is filled.

    What is sealed tells by itself whether the key is right. Where nothing is yet, two servers with a key each would
    seal what no single key opens.
    """
    fingerprint, own = key_claim
    if (await context.database.read(lambda c: server_values.get(c, [KEY_MARK]))).get(KEY_MARK) == fingerprint:
        return
    now, proven = context.now(), bool(context.cache.endpoints)

    def claim(transaction: Transaction) -> bool:
        noted = server_values.get(transaction, [KEY_MARK]).get(KEY_MARK)
        others = (
            each
            for each in processes.every(transaction)
            if each.seq != own and not is_heartbeat_expired(each.seen_at, now)
        )
        if noted not in (None, fingerprint) and not proven and any(others):
            return False
        server_values.replace(transaction, KEY_MARK, {KEY_MARK: fingerprint})
        return True

    if not await context.database.write(claim):
        raise WrongSecretKey(
            "this UPLIFT_SECRET_KEY is not that of the servers that run on this database; give all of them the same"
        )


async def _seed_catalog(context: ServiceContext) -> None:
    """Put the built-in types into a database that never had any; later, the catalog is the operator's."""
    now = context.now()
    database = context.database
    if await database.read(event_types.live) or await database.read(event_types.deleted):
        return

    def seed(transaction: Transaction) -> None:
        # In one commit: a start that was cut off must not leave a part, which the next would take for a choice.
        for built_in in EVENT_TYPES:
            event_types.put(
                transaction,
                name=built_in.name,
                group=built_in.group,
                description=built_in.description,
                schema=json.dumps(built_in.schema, ensure_ascii=False),
                example=json.dumps(built_in.example, ensure_ascii=False),
                api_version=built_in.api_version,
                archived=False,
                documented=built_in.documented,
                now=now,
            )

    await database.write(seed)


async def _load(context: ServiceContext) -> None:
    database, cache = context.database, context.cache
    for event_type in await database.read(event_types.deleted):
        # What is still to be delivered of them bears their names.
        cache.put_event_type(event_type)
        cache.drop_event_type(event_type.name)
    cache.load(
        accounts=await _all(lambda after: database.read(lambda c: accounts.live(c, after=after, limit=LOAD_ROWS))),
        keys=await _all(lambda after: database.read(lambda c: keys.live(c, after=after, limit=LOAD_ROWS))),
        event_types=await database.read(event_types.live),
        endpoints=await _all(lambda after: database.read(lambda c: endpoints.live(c, after=after, limit=LOAD_ROWS))),
    )


async def _all(read: Callable[[int], Awaitable[Sequence[N]]]) -> list[N]:
    found: list[N] = []
    while True:
        page = await read(found[-1].seq if found else 0)
        found.extend(page)
        if len(page) < LOAD_ROWS:
            return found


async def _ensure_operator(
    context: ServiceContext, configured: str | None, keep_key: Callable[[str], None]
) -> str | None:
    """Let the configured operator key in; without one, and if there is none yet, make one and give its text."""
    cache, now = context.cache, context.now()
    if configured is not None:
        # It stands in no table: changing the setting is enough to make the old one worthless, one that was made, too.
        cache.set_operator_key(_operator_key(0, _CONFIGURED_ID, configured, now))
        return None
    if any(key.account_seq is None for key in cache.keys.values()):
        return None
    text = new_key_text(OPERATOR_PREFIX, context.random_bytes(KEY_RANDOM_BYTES))
    keep_key(text)
    made = _operator_key(0, context.new_id(), text, now)

    def create(transaction: Transaction) -> tuple[ApiKey, bool]:
        if earlier := keys.page(transaction, None, limit=1).items:
            return earlier[0], False  # Of another process that began just now, and told it.
        details = {"name": made.name}
        audit.add(transaction, AuditEntry(None, now, SYSTEM, "key.created", ids.prefixed(ids.KEY, made.id), details))
        created = keys.create(
            transaction,
            key_id=made.id,
            account_seq=None,
            name=made.name,
            digest=made.digest,
            ends_with=made.ends_with,
            scopes=made.scopes,
            now=now,
        )
        return created, True

    key, is_new = await context.database.write(create)
    cache.put_key(key)
    return text if is_new else None


def _operator_key(seq: int, key_id: bytes, text: str, now: int) -> ApiKey:
    return ApiKey(
        seq=seq,
        id=key_id,
        account_seq=None,
        name="operator",
        digest=digest_of(text.encode()),
        ends_with=ending_of(text),
        scopes=frozenset(),
        created_at=now,
    )
