"""The audit log: its actions, actors and entries."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from uplift_server.core.named_codes import NamedCode

ACTIONS: Final = {
    "account.created": "An account was created.",
    "account.changed": "The name, contacts, `uid` or metadata of an account were updated.",
    "account.deleted": "An account was deleted with its keys, endpoints and memberships.",
    "key.created": "An API key was created.",
    "key.changed": "An API key's name or expiry was updated.",
    "key.revoked": "An API key was revoked.",
    "member.invited": "A person was invited to an account. The details contain the email address and the role.",
    "member.invitation_withdrawn": "An invitation was withdrawn.",
    "member.joined": "A person joined an account through an invitation or a portal link.",
    "member.role_changed": "A member's role was changed.",
    "member.removed": "A member left an account or was removed.",
    "member.renamed": "A member changed their display name.",
    "member.signed_in": "A member signed in to the dashboard. The details contain the method.",
    "member.identity_linked": "A member signed in with single sign-on for the first time.",
    "member.identity_unlinked": "A member unlinked their single sign-on identity.",
    "member.password_changed": "A member changed or reset their password.",
    "member.second_factor_turned_on": "A member turned on their second factor.",
    "member.second_factor_turned_off": "A member or a password reset turned off the second factor.",
    "member.second_factor_reset": "An operator turned off the second factor of a member.",
    "member.recovery_codes_created": "A member created new recovery codes.",
    "operator.signed_in": "An operator signed in to the dashboard.",
    "link.created": "A one-time dashboard link was created.",
    "link.revoked": "An unused portal link was revoked.",
    "event_type.published": "An event type was added to the event catalog or updated.",
    "event_type.deleted": "An event type was deleted from the event catalog.",
    "endpoint.created": "An endpoint was created.",
    "endpoint.changed": "An endpoint was updated. The details contain the changed fields.",
    "endpoint.deleted": "An endpoint was deleted.",
    "endpoint.paused": "An endpoint was paused.",
    "endpoint.enabled": "An endpoint was enabled. The details contain the action on its held deliveries.",
    "endpoint.tested": "A test event was sent to an endpoint.",
    "endpoint.verified": "An endpoint rejected a wrong signature and accepted a valid one.",
    "endpoint.warned": "The account's contacts were warned about a failing endpoint.",
    "endpoint.disabled": "An endpoint was disabled. The details contain the reason.",
    "endpoint.recovered": "An endpoint recovered after a warning.",
    "endpoint.certificate_expiring": "The account's contacts were warned that a client certificate expires soon.",
    "secret.revealed": "An endpoint's secret was revealed.",
    "secret.rotated": "An endpoint's secret was rotated.",
    "secret.old_expired": "An endpoint's old secret was expired early.",
    "delivery.resent": "A delivery was resent.",
    "delivery.cancelled": "A delivery was cancelled.",
    "replay.created": "A replay was created.",
    "deliveries.resent": "Deliveries that match filters were resent: a replay was created for each endpoint.",
    "replay.paused": "A replay was paused.",
    "replay.resumed": "A replay was resumed.",
    "replay.cancelled": "A replay was cancelled.",
    "listen_session.created": "A listen session was created.",
    "listen_session.ended": "A listen session was deleted.",
    "erasure.created": "An erasure of events was requested. The details contain a digest of the object ID, or the"
    " number of event IDs.",
    "erasure.completed": "An erasure was completed. The details contain the number of events.",
    "retention.resumed": "An operator confirmed that the clock is correct, and resumed retention.",
    "mass_failure.began": "A mass failure of endpoints began. Warnings and disabling are suspended.",
    "mass_failure.ended": "A mass failure of endpoints ended. Warnings and disabling resume.",
}
"""The description of each action. In an action's name, the part before the period is the subject's type."""


class ActorKind(NamedCode):
    """The type of an actor. The database stores it as a number."""

    SYSTEM = 0
    OPERATOR = 1
    KEY = 2
    MEMBER = 3


@dataclass(frozen=True, slots=True)
class Actor:
    """The person or program that performed an action, or the server itself."""

    kind: ActorKind
    name: str
    id: str | None = None
    address: str | None = None
    """The IP address from which the actor sent the request, or None if there was no request."""


SYSTEM: Final = Actor(ActorKind.SYSTEM, "Uplift Webhooks")
"""The actor for actions that the server itself performs."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry of the audit log. `seq` is 0 until the entry is stored."""

    account_seq: int | None
    at: int
    actor: Actor
    action: str
    subject: str
    details: Mapping[str, object]
    seq: int = 0
    account_id: bytes | None = None
    """The account's ID. None until the entry is read from the store."""


def difference(
    before: Mapping[str, object], after: Mapping[str, object], *, shown: Collection[str]
) -> dict[str, object]:
    """Describe a change: the names of the changed fields, and the old and new values of the fields in `shown`.

    `shown` must not contain fields with secrets. The description contains URLs without their query, because a query can
    contain a token.
    """
    changed = [name for name, value in after.items() if value != before[name]]
    if not changed:
        return {}
    details: dict[str, object] = {"changed": changed}
    names = [name for name in changed if name in shown]
    if names:
        details["from"] = {name: _shown(before[name], name) for name in names}
        details["to"] = {name: _shown(after[name], name) for name in names}
    return details


def without_query(url: str) -> str:
    """Return a URL without its query."""
    return url.partition("?")[0]


def _shown(value: object, name: str) -> object:
    return without_query(str(value)) if name == "url" else value
