"""Owners whose endpoints fail over simulated weeks, and the notifications that these owners receive."""

import json
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from tests.engines import Place

from uplift_server.core.deliveries.health import HealthRule
from uplift_server.core.http.exchange import Exchange
from uplift_server.core.people.notifications import FACTS, NotificationKind
from uplift_server.delivery.endpoint_cache import LiveEndpoint
from uplift_server.delivery.sending.http.request import Request
from uplift_server.store import audit
from uplift_server.store.audit import AuditFilter
from uplift_server.store.outbox import EmailResult, settle
from uplift_server.store.pages import PageRequest
from uplift_server.store.records import Account
from uplift_server.store.schema import endpoints as endpoints_table
from uplift_server.store.schema import notices as notices_table

from .world import DAY, HOUR, SECOND, World, respond

SLACK = 5 * SECOND
"""The maximum delay of one action of the health monitor, in ms."""


EVERY_FOUR_HOURS = (5 * SECOND, 300 * SECOND, *[4 * HOUR] * 60)


RULE = HealthRule(3 * DAY, 5 * DAY)


CONTACTS = ("coach@rapids.example", "it@rapids.example")


ENDED = "mass_failure.ended"


class Receiver:
    """A receiver with a settable response; 503 at first."""

    def __init__(self) -> None:
        self.status = 503

    def __call__(self, _: Request) -> Exchange | None:
        return respond(self.status)


@dataclass
class Owner:
    """An account with contacts, an endpoint, and its receiver."""

    account: Account
    endpoint: LiveEndpoint
    receiver: Receiver
    host: str


def long_world(place: Place, **settings: Any) -> World:
    return World(place, **{"delays_ms": EVERY_FOUR_HOURS, "scan_every_ms": HOUR} | settings)


async def owner_of(world: World, host: str = "one.test", contacts: tuple[str, ...] = CONTACTS) -> Owner:
    account, receiver = await world.new_account(contacts), Receiver()
    return Owner(account, await world.endpoint(host, receiver, account=account), receiver, host)


async def read_emails(world: World) -> list[tuple[NotificationKind, str, dict[str, Any]]]:
    """Return all emails, oldest first."""
    query = sa.select(notices_table).order_by(notices_table.c.seq)
    rows = await world.database.read(lambda c: list(c.execute(query).all()))
    found = [(NotificationKind(row.kind), row.recipient, json.loads(row.facts)) for row in rows]
    for kind, _, facts in found:
        assert set(facts) - {"others", "more"} == set(FACTS[kind])
    return found


async def kinds(world: World) -> list[tuple[NotificationKind, str]]:
    """Return the kind and the recipient of all emails, oldest first."""
    return [(kind, recipient) for kind, recipient, _ in await read_emails(world)]


async def deliver_emails(world: World, *, sent: bool = True) -> None:
    """Mark all due emails as sent, or as failed."""
    at = world.clock.now if sent else None
    query = sa.select(notices_table.c.seq).where(notices_table.c.due_at.is_not(None))
    seqs = await world.database.read(lambda c: list(c.scalars(query)))
    await world.database.write(lambda c: settle(c, [EmailResult(seq, 1, sent_at=at) for seq in seqs]))


async def actions(world: World, account: Account | None = None) -> list[tuple[str, int]]:
    """Return the action and the time of each entry in the audit log, oldest first."""
    seq = None if account is None else account.seq
    page = await world.database.read(lambda c: audit.page(c, seq, AuditFilter(), PageRequest(500)))
    return [(entry.action, entry.at) for entry in reversed(page.items)]


async def stored(world: World, owner: Owner) -> sa.Row[Any]:
    query = sa.select(endpoints_table).where(endpoints_table.c.seq == owner.endpoint.seq)
    return await world.database.read(lambda c: c.execute(query).one())


def to_all_contacts(kind: NotificationKind) -> list[tuple[NotificationKind, str]]:
    return [(kind, contact) for contact in CONTACTS]


WARNED = to_all_contacts(NotificationKind.ENDPOINT_WARNED)


DISABLED = to_all_contacts(NotificationKind.ENDPOINT_DISABLED)


RECOVERED = to_all_contacts(NotificationKind.ENDPOINT_RECOVERED)
