"""The audit log: its actions, actors and entries."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from uplift_server.core.named_codes import NamedCode

ACTIONS: Final = {
    "account.created": "An account was made.",
    "account.changed": "An account's name or contacts were changed.",
    "account.deleted": "An account was deleted, with its keys and endpoints, and its members let go.",
    "key.created": "A key was made.",
    "key.revoked": "A key was revoked.",
    "member.invited": "Somebody was invited to an account; the details say whom, and as what.",
    "member.invitation_withdrawn": "An invitation was withdrawn.",
    "member.joined": "Somebody became a member of an account, by an invitation or a portal link.",
    "member.role_changed": "A member's role was changed.",
    "member.removed": "A member was removed from an account, or left it.",
    "member.renamed": "A member changed the name that others see.",
    "member.signed_in": "A member signed in to the dashboard; the details say by what.",
    "member.password_changed": "A member changed a password, or set a new one for one that was forgotten.",
    "operator.signed_in": "An operator signed in to the dashboard.",
    "link.created": "A one-time link into the dashboard was made.",
    "event_type.published": "An event type was added to the catalog, or changed.",
    "event_type.deleted": "An event type was taken out of the catalog.",
    "endpoint.created": "An endpoint was registered.",
    "endpoint.changed": "An endpoint's URL, subscription, headers or limits were changed.",
    "endpoint.deleted": "An endpoint was deleted.",
    "endpoint.paused": "An endpoint was paused.",
    "endpoint.enabled": "An endpoint was enabled; the details say what became of what was held.",
    "endpoint.tested": "A test delivery was sent.",
    "endpoint.warned": "An endpoint had failed for so long that its account's contacts were told.",
    "endpoint.disabled": "An endpoint was switched off; the details say why.",
    "endpoint.recovered": "An endpoint answered again after a warning.",
    "secret.revealed": "An endpoint's secret was shown.",
    "secret.rotated": "An endpoint got a new secret.",
    "secret.old_expired": "An endpoint's previous secret was ended before its time.",
    "delivery.resent": "A delivery was sent again.",
    "delivery.cancelled": "A delivery was cancelled.",
    "replay.created": "A replay was started.",
    "replay.paused": "A replay was paused.",
    "replay.resumed": "A replay went on.",
    "replay.cancelled": "A replay was cancelled.",
    "listen_session.created": "A developer began to listen.",
    "listen_session.ended": "A listen session was ended.",
    "retention.resumed": "An operator confirmed the clock, and retention resumed.",
    "mass_failure.began": "Many endpoints began to fail at once: nobody is warned or disabled until it ends.",
    "mass_failure.ended": "Enough of them answer again: the clocks go on.",
}
"""By name. The part before the period is the type of the subject."""


class ActorKind(NamedCode):
    """The kind of actor. The database stores the number."""

    SYSTEM = 0
    OPERATOR = 1
    KEY = 2
    MEMBER = 3


@dataclass(frozen=True, slots=True)
class Actor:
    """The person or program that performed an action."""

    kind: ActorKind
    name: str
    id: str | None = None
    address: str | None = None
    """The IP address of the request."""


SYSTEM: Final = Actor(ActorKind.SYSTEM, "Uplift Webhooks")
"""The server itself."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry. `seq` is 0 until it is stored."""

    account_seq: int | None
    at: int
    actor: Actor
    action: str
    subject: str
    details: Mapping[str, object]
    seq: int = 0
    account_id: bytes | None = None
    """Set when entries are read."""


def difference(
    before: Mapping[str, object], after: Mapping[str, object], *, shown: Collection[str]
) -> dict[str, object]:
    """Describe a change: the names of the changed fields, with old and new values of the fields in `shown`.

    Leave fields that may hold secrets out of `shown`. URLs are recorded without their query, which may hold a token.
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
