"""Prepares the database and the cache before the server accepts requests."""

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, Protocol, TypeVar

from uplift_server.config import ConfigError, ConfigProblem
from uplift_server.core import ids
from uplift_server.core.events.catalog import EVENT_TYPES, EventType
from uplift_server.core.events.operational import OPERATIONAL_TYPES
from uplift_server.core.operations.cluster import is_heartbeat_expired
from uplift_server.core.people.audit import SYSTEM, AuditEntry
from uplift_server.delivery.endpoint_cache import EndpointCache
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
    locks,
    processes,
    server_values,
    service_keys,
)
from uplift_server.store.contract import Transaction
from uplift_server.store.encryption import WrongSecretKey
from uplift_server.store.pages import PageRequest
from uplift_server.store.records import ApiKey

LOAD_ROWS: Final = 1000
OPERATIONS_ACCOUNT_FIX: Final = "use an ID or a uid from `uplift-server accounts`, or remove the setting"
FINGERPRINT: Final = "secret_key.fingerprint"
_CONFIGURED_ID: Final = bytes(16)


class ProcessKey(NamedTuple):
    """The fingerprint of a process's encryption key, and the process ID."""

    fingerprint: int
    process_id: int


class _Numbered(Protocol):
    @property
    def seq(self) -> int: ...


N = TypeVar("N", bound=_Numbered)


async def prepare(
    context: ServiceContext,
    process_key: ProcessKey,
    configured_operator_key: str | None,
    keep_key: Callable[[str], None] = lambda _: None,
) -> str | None:
    """Prepare a migrated database for requests, and fill the cache.

    If this call creates the first operator key, return its text, because the server cannot show the text later.
    `keep_key` receives the text before the server stores the key, so that an interrupted start leaves no active key
    whose text is unknown. Raises WrongSecretKey if a stored secret cannot be decrypted, or if a live process uses
    another encryption key. Raises Unavailable if the database cannot execute an operation.
    """
    await _seed_catalog(context)
    if await context.database.read(database_identity.get) is None:
        await context.database.write(database_identity.ensure)
    await _load(context)
    # Check the encryption key first, because a start with the wrong key must not create an operator key.
    await _check_encryption_key(context, process_key)
    return await _ensure_operator(context, configured_operator_key, keep_key)


def require_operations_account(cache: EndpointCache, account: str | None) -> None:
    """Raise ConfigError if the account that receives all operational events does not exist."""
    if account is not None and cache.find_account(account) is None:
        reason = f"is {account}, but no account has this ID or uid"
        raise ConfigError(ConfigProblem("UPLIFT_OPERATIONS_ACCOUNT", reason, OPERATIONS_ACCOUNT_FIX))


async def _check_encryption_key(context: ServiceContext, process_key: ProcessKey) -> None:
    """Check and store the fingerprint of the encryption key. Call this function after the cache is filled.

    If the database has encrypted values, filling the cache has already proved that the key is correct. Otherwise, the
    fingerprint prevents servers with different keys from sharing the database. Raises WrongSecretKey.
    """
    fingerprint, own_process_id = process_key
    if (await context.database.read(lambda c: server_values.get(c, [FINGERPRINT]))).get(FINGERPRINT) == fingerprint:
        return
    now, is_proved = context.now(), bool(context.cache.endpoints)

    def store_fingerprint(transaction: Transaction) -> bool:
        server_values.lock(transaction, FINGERPRINT)
        stored = server_values.get(transaction, [FINGERPRINT]).get(FINGERPRINT)
        others = (
            each
            for each in processes.list_all(transaction)
            if each.seq != own_process_id and not is_heartbeat_expired(each.seen_at, now)
        )
        if stored not in (None, fingerprint) and not is_proved and any(others):
            return False
        server_values.replace(transaction, FINGERPRINT, {FINGERPRINT: fingerprint})
        return True

    if not await context.database.write(store_fingerprint):
        raise WrongSecretKey(
            "UPLIFT_SECRET_KEY differs from the key of the other servers on this database; use the same key for all"
        )


async def _seed_catalog(context: ServiceContext) -> None:
    """Add the built-in event types to a database that has never had event types.

    To any other database, add only the missing operational event types, because the server sends events of these types.
    For example, a catalog from an earlier release can lack some of them.
    """
    now = context.now()
    database = context.database
    if not await database.read(_missing_types):
        return

    def seed(transaction: Transaction) -> None:
        # Use one commit, because the next start would treat a partial catalog as the operator's choice.
        locks.take(transaction, locks.CATALOG)
        for built_in in _missing_types(transaction):
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


def _missing_types(connection: Transaction) -> list[EventType]:
    """Return the built-in event types to add. Omit types that an operator deleted."""
    known = {each.name for each in (*event_types.list_live(connection), *event_types.list_deleted(connection))}
    return [each for each in EVENT_TYPES if not known or (each.name in OPERATIONAL_TYPES and each.name not in known)]


async def _load(context: ServiceContext) -> None:
    database, cache = context.database, context.cache
    for event_type in await database.read(event_types.list_deleted):
        # Pending deliveries need the names of deleted types.
        cache.put_event_type(event_type)
        cache.drop_event_type(event_type.name)
    cache.load(
        accounts=await _read_all(
            lambda after: database.read(lambda c: accounts.list_live(c, after=after, limit=LOAD_ROWS))
        ),
        keys=await _read_all(lambda after: database.read(lambda c: keys.list_live(c, after=after, limit=LOAD_ROWS))),
        event_types=await database.read(event_types.list_live),
        endpoints=await _read_all(
            lambda after: database.read(lambda c: endpoints.list_live(c, after=after, limit=LOAD_ROWS))
        ),
        service_keys=await _read_all(
            lambda after: database.read(lambda c: service_keys.list_live(c, after=after, limit=LOAD_ROWS))
        ),
    )


async def _read_all(read: Callable[[int], Awaitable[Sequence[N]]]) -> list[N]:
    found: list[N] = []
    while True:
        page = await read(found[-1].seq if found else 0)
        found.extend(page)
        if len(page) < LOAD_ROWS:
            return found


async def _ensure_operator(
    context: ServiceContext, configured: str | None, keep_key: Callable[[str], None]
) -> str | None:
    """Activate the configured operator key.

    If no operator key is configured or stored, create the first operator key and return its text.
    """
    cache, now = context.cache, context.now()
    if configured is not None:
        # The key from the settings replaces a generated key.
        # The server does not store the key from the settings, so a change to the setting revokes the key.
        cache.set_operator_key(_operator_key(0, _CONFIGURED_ID, configured, now))
        return None
    if any(key.account_seq is None for key in cache.keys.values()):
        return None
    text = new_key_text(OPERATOR_PREFIX, context.random_bytes(KEY_RANDOM_BYTES))
    keep_key(text)
    new = _operator_key(0, context.new_id(), text, now)

    def create(transaction: Transaction) -> tuple[ApiKey, bool]:
        locks.take(transaction, locks.OPERATOR_KEYS)
        if earlier := keys.page(transaction, None, PageRequest(1)).items:
            return earlier[0], False  # Another process created an operator key at the same time.
        details = {"name": new.name}
        audit.add(transaction, AuditEntry(None, now, SYSTEM, "key.created", ids.prefixed(ids.KEY, new.id), details))
        created = keys.create(
            transaction,
            key_id=new.id,
            account_seq=None,
            name=new.name,
            digest=new.digest,
            ends_with=new.ends_with,
            scopes=new.scopes,
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
