"""The audit log for one account or all accounts, with filters."""

from collections.abc import Sequence
from typing import Any, Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.core.people.audit import ACTIONS, ActorKind, AuditEntry
from uplift_server.core.problems import Problem
from uplift_server.core.timestamps import format_optional_timestamp
from uplift_server.dashboard.audit_words import details_words
from uplift_server.dashboard.visit import Visit, link
from uplift_server.service.errors import Invalid
from uplift_server.service.principals import Caller
from uplift_server.store.audit import AuditFilter

_PAGE: Final = "settings/audit_log.html"
_KIND_WORDS: Final = {
    "": "All",
    ActorKind.MEMBER.text: "Members",
    ActorKind.KEY.text: "API keys",
    ActorKind.OPERATOR.text: "Operators",
    ActorKind.SYSTEM.text: "Server",
}


async def audit_page(visit: Visit, caller: Caller, path: str, problems: Sequence[Problem] = ()) -> Response:
    """Show the audit log entries that the caller can see and that match the URL's filters.

    `path` is the path of the page.
    """
    asked, found_problems = visit.query, list(problems)
    wanted = AuditFilter(
        actor=asked.optional("actor"),
        action=asked.optional("action"),
        created_after=asked.instant("created_after", found_problems),
        created_before=asked.instant("created_before", found_problems),
    )
    context: dict[str, Any] = {
        "tab": "audit-log",
        "path": path,
        "asked": asked,
        "wanted": wanted,
        "after": wanted.created_after,
        "before": wanted.created_before,
        "query": link(
            "",
            actor=wanted.actor,
            action=wanted.action,
            created_after=format_optional_timestamp(wanted.created_after),
            created_before=format_optional_timestamp(wanted.created_before),
        ),
        "filtered": wanted != AuditFilter() or asked.optional("account") is not None,
        "actors": _actors(wanted.actor),
        "actions": [("", "All"), *((name, name) for name in ACTIONS)],
        "words": ACTIONS,
        "accounts": visit.services.context.cache.accounts_by_id,
    }
    try:
        found = await visit.services.audit_log.page(caller, wanted, visit.listing(), problems=found_problems)
    except Invalid as error:
        return visit.refuse(_PAGE, error.problems, entries=[], next=None, **context)
    entries = [(entry, _href(entry), details_words(entry.details)) for entry in found.items]
    return visit.render(_PAGE, entries=entries, next=visit.cursor(found.next_key), **context)


def _actors(chosen: str | None) -> list[tuple[str, str]]:
    """Return the choices for the actor filter: each kind of actor, and the actor ID in the URL, if any."""
    found = list(_KIND_WORDS.items())
    if chosen is not None and chosen not in _KIND_WORDS:
        found.append((chosen, chosen))
    return found


def _href(entry: AuditEntry) -> str | None:
    """Return the path of the page about an entry's subject, or None if the subject has no page."""
    if entry.account_id is None:
        return None
    account = f"/accounts/{ids.prefixed(ids.ACCOUNT, entry.account_id)}"
    kind = entry.subject.partition("_")[0]
    if kind == ids.ENDPOINT and entry.action != "endpoint.deleted":
        return f"{account}/endpoints/{entry.subject}"
    if kind in {ids.DELIVERY, ids.REPLAY}:
        return f"{account}/{'deliveries' if kind == ids.DELIVERY else 'replays'}/{entry.subject}"
    return None
