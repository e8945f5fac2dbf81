"""An account's settings: who is told of trouble, and what was done."""

from typing import Any, Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.core.limits import CONTACT_EMAILS_MAX
from uplift_server.core.people.audit import ACTIONS, ActorKind, AuditEntry
from uplift_server.core.problems import Problem
from uplift_server.core.security.rights import Right
from uplift_server.dashboard.audit_words import details_words
from uplift_server.dashboard.routes import account_form, account_page
from uplift_server.dashboard.visit import Visit
from uplift_server.service.accounts import AccountDraft
from uplift_server.service.errors import Invalid
from uplift_server.store.audit import AuditFilter

_CONTACTS: Final = "settings/contacts.html"
_AUDIT_LOG: Final = "settings/audit_log.html"
_KIND_WORDS: Final = {
    "": "anybody",
    ActorKind.MEMBER.text: "members",
    ActorKind.KEY.text: "API keys",
    ActorKind.OPERATOR.text: "operators",
    ActorKind.SYSTEM.text: "the server itself",
}


async def contacts(visit: Visit) -> Response:
    """Who is told when an endpoint fails."""
    assert visit.account is not None
    return visit.render(_CONTACTS, **_of_contacts(visit, "\n".join(visit.account.contact_emails)))


async def change_contacts(visit: Visit) -> Response:
    """Change them."""
    assert visit.account is not None
    sent = await visit.form()
    emails = sent.lines("contact_emails")
    account = ids.prefixed(ids.ACCOUNT, visit.account.id)
    try:
        await visit.services.accounts.update(visit.caller, account, AccountDraft(contact_emails=emails))
    except Invalid as error:
        return visit.refuse(_CONTACTS, error.problems, **_of_contacts(visit, sent.raw("contact_emails")))
    return visit.leave(visit.path("settings", "contacts"), "The contacts are saved.")


def _of_contacts(visit: Visit, emails: str) -> dict[str, Any]:
    may_change = visit.caller.principal.has_right(Right.ACCOUNT_MANAGE)
    return {"tab": "contacts", "emails": emails, "may_change": may_change, "most": CONTACT_EMAILS_MAX}


async def audit_log(visit: Visit) -> Response:
    """What was done in the account."""
    asked = visit.query
    problems: list[Problem] = []
    wanted = AuditFilter(
        actor=asked.optional("actor"),
        action=asked.optional("action"),
        created_after=asked.instant("created_after", problems),
        created_before=asked.instant("created_before", problems),
    )
    context: dict[str, Any] = {
        "tab": "audit-log",
        "asked": asked,
        "after": wanted.created_after,
        "before": wanted.created_before,
        "filtered": wanted != AuditFilter(),
        "actors": _actors(wanted.actor),
        "actions": [("", "anything"), *((name, name) for name in ACTIONS)],
        "words": ACTIONS,
    }
    try:
        found = await visit.services.audit_log.page(visit.caller, wanted, visit.listing(), problems=problems)
    except Invalid as error:
        return visit.refuse(_AUDIT_LOG, error.problems, entries=[], next=None, **context)
    entries = [(entry, _href(visit, entry), details_words(entry.details)) for entry in found.items]
    return visit.render(_AUDIT_LOG, entries=entries, next=visit.cursor(found.next_key), **context)


def _actors(chosen: str | None) -> list[tuple[str, str]]:
    """Kinds of actors to choose from, and the one that was asked for by its id."""
    found = list(_KIND_WORDS.items())
    if chosen is not None and chosen not in _KIND_WORDS:
        found.append((chosen, chosen))
    return found


def _href(visit: Visit, entry: AuditEntry) -> str | None:
    """Where what it was done to is shown; None where it is not, or not any more."""
    kind = entry.subject.partition("_")[0]
    if kind == ids.ENDPOINT and entry.action != "endpoint.deleted":
        return visit.path("endpoints", entry.subject)
    if kind in {ids.DELIVERY, ids.REPLAY}:
        return visit.path("deliveries" if kind == ids.DELIVERY else "replays", entry.subject)
    return None


PAGES: Final = (
    account_page("/settings/contacts", contacts),
    account_form("/settings/contacts", change_contacts),
    account_page("/settings/audit-log", audit_log),
)
