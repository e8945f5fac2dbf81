"""Settings of an account: contacts and audit log."""

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
    "": "All",
    ActorKind.MEMBER.text: "Members",
    ActorKind.KEY.text: "API keys",
    ActorKind.OPERATOR.text: "Operators",
    ActorKind.SYSTEM.text: "Server",
}


async def contacts(visit: Visit) -> Response:
    """Show the contacts for endpoint failures."""
    assert visit.account is not None
    return visit.render(_CONTACTS, **_of_contacts(visit, "\n".join(visit.account.contact_emails)))


async def change_contacts(visit: Visit) -> Response:
    """Update the contacts."""
    assert visit.account is not None
    sent = await visit.form()
    emails = sent.lines("contact_emails")
    account = ids.prefixed(ids.ACCOUNT, visit.account.id)
    try:
        await visit.services.accounts.update(visit.caller, account, AccountDraft(contact_emails=emails))
    except Invalid as error:
        return visit.refuse(_CONTACTS, error.problems, **_of_contacts(visit, sent.raw("contact_emails")))
    return visit.leave(visit.path("settings", "contacts"), "Contacts saved.")


def _of_contacts(visit: Visit, emails: str) -> dict[str, Any]:
    may_change = visit.caller.principal.has_right(Right.ACCOUNT_MANAGE)
    return {"tab": "contacts", "emails": emails, "may_change": may_change, "most": CONTACT_EMAILS_MAX}


async def audit_log(visit: Visit) -> Response:
    """Show the audit log of the account."""
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
        "actions": [("", "All"), *((name, name) for name in ACTIONS)],
        "words": ACTIONS,
    }
    try:
        found = await visit.services.audit_log.page(visit.caller, wanted, visit.listing(), problems=problems)
    except Invalid as error:
        return visit.refuse(_AUDIT_LOG, error.problems, entries=[], next=None, **context)
    entries = [(entry, _href(visit, entry), details_words(entry.details)) for entry in found.items]
    return visit.render(_AUDIT_LOG, entries=entries, next=visit.cursor(found.next_key), **context)


def _actors(chosen: str | None) -> list[tuple[str, str]]:
    """Return the kinds of actors, and the actor ID of the filter."""
    found = list(_KIND_WORDS.items())
    if chosen is not None and chosen not in _KIND_WORDS:
        found.append((chosen, chosen))
    return found


def _href(visit: Visit, entry: AuditEntry) -> str | None:
    """Return the page of the entry's subject, or None if there is none."""
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
