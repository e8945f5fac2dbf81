"""The services of a server, with a database and a virtual clock."""

import asyncio
from typing import Any, cast

from argon2 import PasswordHasher
from argon2.profiles import CHEAPEST
from tests.caches import endpoint_cache
from tests.delivery.world import VirtualClock
from tests.engines import Place

from uplift_server.core import ids
from uplift_server.core.cursors import Cursors
from uplift_server.core.endpoint_settings import AttemptTimeouts
from uplift_server.core.http.addresses import AddressPolicy
from uplift_server.core.people.audit import AuditEntry
from uplift_server.core.people.people import normalize_password
from uplift_server.core.security.rights import Role
from uplift_server.delivery.endpoint_cache import EndpointCache
from uplift_server.delivery.listening.audience import Audience, NoAnnouncer
from uplift_server.delivery.listening.relay import Relay
from uplift_server.observe.counters import EngineCounters
from uplift_server.service.accounts import AccountDraft
from uplift_server.service.authentication import digest_of
from uplift_server.service.context import ServiceContext
from uplift_server.service.dashboard_links import DashboardLinks
from uplift_server.service.engine_link import EngineLink
from uplift_server.service.identity_provider import IdentityProvider
from uplift_server.service.passwords import Passwords
from uplift_server.service.portal_links import LinkDraft
from uplift_server.service.principals import Caller
from uplift_server.service.services import Services
from uplift_server.service.sessions import Visitor
from uplift_server.service.startup import ProcessKey
from uplift_server.store import audit, members, people
from uplift_server.store.audit import AuditFilter
from uplift_server.store.contract import Database
from uplift_server.store.encryption import Cipher
from uplift_server.store.pages import PageRequest
from uplift_server.store.records import Member

URL = "https://hooks.example.com"
ADDRESS = "192.0.2.9"
PASSWORD = "correct horse battery"
PROCESS_KEY = ProcessKey(1, process_id=1)
_HASHER = PasswordHasher.from_parameters(CHEAPEST)
"""Verifying its hashes takes 60 ms less than those of the server, which is longer than most tests take."""


class _IdleEngine:
    """An engine that applies changes of endpoints only to the cache, and has no timers."""

    def __init__(self, cache: EndpointCache) -> None:
        self.apply = cache.put_endpoint

    def deleted(self, endpoint_seq: int) -> None:
        """See EndpointChanges."""

    def note_due(self, endpoint_seq: int) -> None:
        """See EndpointChanges."""

    def next_probe_at(self, endpoint_seq: int) -> int | None:
        """See EngineStatus."""

    disable_at = warn_at = next_probe_at


class World:
    """The services of a server, and helpers for tests."""

    def __init__(self, database: Database, place: Place) -> None:
        self.database, self.place, self.clock = database, place, VirtualClock()
        clock = self.clock
        self.passwords = Passwords()
        self.cipher = Cipher(bytes(32))
        self.cache = endpoint_cache(self.cipher)
        relay = Relay(database, self.cache, Audience(), NoAnnouncer(), clock)
        ignored = cast(Any, _IdleEngine(self.cache))
        engine = EngineLink(relay, EngineCounters(), ignored, ignored, ignored, ignored, ignored)
        self.context = ServiceContext(database, self.cache, clock, engine, Cursors(bytes(32)))
        self.services = self.build(sends_email=True)
        self.operator_key = ""

    def build(self, *, sends_email: bool, provider: IdentityProvider | None = None) -> Services:
        """Return the services of a server with or without email and an identity provider."""
        return Services.build(
            self.context,
            cipher=self.cipher,
            policy=AddressPolicy(allow_private_networks=False),
            resolve=_resolve_nothing,
            source_ips=[],
            listen_key=bytes(32),
            erasure_key=bytes(32),
            links=DashboardLinks(b"e" * 32, URL, sends_email=sends_email),
            timeouts=AttemptTimeouts(15_000, 30_000),
            provider=provider,
        )

    @property
    def operator(self) -> Caller:
        """The caller with the operator key and no account."""
        return self.services.authenticator.caller(self.operator_header, None, ADDRESS)

    @property
    def operator_header(self) -> bytes:
        """The value of the header `Authorization` with the operator key."""
        return f"Bearer {self.operator_key}".encode()

    async def account(self, name: str = "Riverside") -> str:
        """Create an account, and return its ID."""
        created, _ = await self.services.accounts.create(self.operator, AccountDraft(name=name))
        return ids.prefixed(ids.ACCOUNT, created.id)

    def seq(self, account: str) -> int:
        """Return the sequence number of an account."""
        return self.cache.accounts_by_id[ids.parse_prefixed(ids.ACCOUNT, account) or b""].seq

    async def member(self, account: str, email: str, role: Role = Role.MEMBER, password: str | None = PASSWORD) -> str:
        """Store a member and, if needed, the person. Return the member ID."""
        seq, now = self.seq(account), self.context.now()
        hashed = None if password is None else _HASHER.hash(normalize_password(password))
        person_id, member_id = self.context.new_id(), self.context.new_id()

        def make(connection: Any) -> Member:
            person = people.find(connection, email) or people.create(
                connection, person_id=person_id, email=email, name=email, password_hash=hashed, proved=True, now=now
            )
            return members.add(connection, member_id=member_id, account_seq=seq, person=person, role=role, now=now)

        return ids.prefixed(ids.MEMBER, (await self.database.write(make)).id)

    async def sign_in(self, email: str, password: str = PASSWORD) -> Visitor:
        """Sign a person in, and return the visitor."""
        return await self.visitor(await self.services.sessions.sign_in(email, password, address=ADDRESS))

    async def visitor(self, cookie: str) -> Visitor:
        """Return the visitor with a cookie."""
        found = await self.services.sessions.visitor(cookie)
        assert found is not None
        return found

    async def portal(self, account: str, **draft: str) -> str:
        """Create a portal link, and return its token."""
        link = await self.services.portal_links.create(self.operator, account, LinkDraft(**draft))
        return link.url.removeprefix(f"{URL}/enter/")

    async def audited(self, account: str | None = None) -> list[AuditEntry]:
        """Return the entries of the audit log, oldest first."""
        seq = None if account is None else self.seq(account)
        found = await self.database.read(lambda c: audit.page(c, seq, AuditFilter(), PageRequest(100)))
        return found.items[::-1]

    async def contents(self) -> bytes:
        """Return all bytes of the database."""
        return await asyncio.to_thread(self.place.contents)


async def _resolve_nothing(_host: str) -> list[str]:
    return []


def key_digest(key: str) -> bytes:
    """Return the stored digest of a key."""
    return digest_of(key.encode())
