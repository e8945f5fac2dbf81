"""Adds actions of members to the audit logs of their accounts."""

from collections.abc import Mapping

from uplift_server.core import ids
from uplift_server.core.people.audit import Actor, ActorKind, AuditEntry
from uplift_server.store import audit, people
from uplift_server.store.contract import Transaction
from uplift_server.store.records import Member, Person


def audit_member_action(
    connection: Transaction, member: Member, action: str, by: str, now: int, address: str | None
) -> None:
    """Add a member's action to the account's audit log. `by` is the sign-in method, such as `portal link`."""
    subject = ids.prefixed(ids.MEMBER, member.id)
    actor = Actor(ActorKind.MEMBER, member.person.title, subject, address)
    details = {"by": by, "role": member.role.text} if action == "member.joined" else {"by": by}
    audit.add(connection, AuditEntry(member.account_seq, now, actor, action, subject, details))


def audit_person(
    connection: Transaction, person: Person, action: str, details: Mapping[str, object], now: int, address: str | None
) -> None:
    """Add a person's action to the audit logs of all the person's accounts."""
    for place in people.memberships(connection, person.seq):
        actor = Actor(ActorKind.MEMBER, person.title, ids.prefixed(ids.MEMBER, place.member_id), address)
        audit.add(connection, AuditEntry(place.account_seq, now, actor, action, actor.id or "", details))
