"""Read access to the audit log."""

import difflib
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from uplift_server.core import ids
from uplift_server.core.people.audit import ACTIONS, ActorKind, AuditEntry
from uplift_server.core.problems import Problem
from uplift_server.core.security.rights import Right
from uplift_server.service.context import Listing, ServiceContext
from uplift_server.service.principals import Caller
from uplift_server.store import audit
from uplift_server.store.audit import AuditFilter
from uplift_server.store.records import Page

_SIMILARITY_MIN: Final = 0.5


class AuditLog:
    """Lists audit log entries.

    Other services add the entries, in the same transactions as their changes.
    """

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def page(
        self, caller: Caller, filters: AuditFilter, listing: Listing, *, problems: Sequence[Problem] = ()
    ) -> Page[AuditEntry]:
        """Return a page of entries for the caller's account, or for all accounts if an operator names no account.

        Only operators see operators' IP addresses. Raises AccountRequired if a caller with a service key names no
        account, because only operators can see the entries about the server.
        """
        caller.require_right(Right.AUDIT_READ)
        if not caller.principal.is_operator:
            caller.require_account()
        request = self._context.page_request(listing, 1, [*problems, *_unknown(filters.action)])
        wanted = replace(filters, subject=self._subject(caller, filters.subject))
        found = await self._context.database.read(lambda c: audit.page(c, caller.account_seq, wanted, request))
        if caller.principal.is_operator:
            return found
        return found.of([_without_operator_address(entry) for entry in found.items])

    def _subject(self, caller: Caller, text: str | None) -> str | None:
        """Return the public ID of the account or endpoint with the uid `text`.

        Return `text` itself if it is the name of an event type, or if no account or endpoint that the caller can access
        has this uid.
        """
        cache = self._context.cache
        if text is None or text in cache.event_types:
            return text
        endpoint, account = cache.find_endpoint(caller.account_seq, text), cache.find_account(text)
        if endpoint is not None:
            return endpoint.id_text
        if account is not None and caller.account_seq in {None, account.seq}:
            return ids.prefixed(ids.ACCOUNT, account.id)
        return text


def _without_operator_address(entry: AuditEntry) -> AuditEntry:
    if entry.actor.kind is not ActorKind.OPERATOR:
        return entry
    return replace(entry, actor=replace(entry.actor, address=None))


def _unknown(action: str | None) -> list[Problem]:
    if action is None or action in ACTIONS:
        return []
    nearest = difflib.get_close_matches(action[:100], ACTIONS, n=1, cutoff=_SIMILARITY_MIN)
    fix = f"Did you mean {nearest[0]}?" if nearest else "See the list of audit actions in the API reference."
    return [Problem("action", "action_unknown", f"The action {action[:100]!r} does not exist. {fix}")]
