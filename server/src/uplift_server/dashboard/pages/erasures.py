"""Pages for the erasure of personal data: the form, the preview, the confirmation, and the receipts.

An erasure can select events by the ID of the object in their data. This ID can identify a person, so the URLs of these
pages do not contain it. Until the visitor confirms the erasure, an encrypted cookie stores the ID.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.core.problems import Problem
from uplift_server.core.security.rights import Right
from uplift_server.dashboard.forms import Form, key_of
from uplift_server.dashboard.routes import account_form, account_page
from uplift_server.dashboard.visit import Visit
from uplift_server.service.erasures import ErasureDraft, ErasurePreview
from uplift_server.service.errors import Invalid

EVENT_IDS_MAX: Final = 40
"""Maximum number of event IDs in the form. The IDs must fit into a cookie."""
_NEW: Final = "erasures/new.html"
_DRAFT: Final = "erasure"
"""The `ShownSecret.subject` in the cookie that stores the validated input until the visitor confirms the erasure."""
_SEPARATORS: Final = re.compile(r"[\s,]+")


async def listed(visit: Visit) -> Response:
    """List the erasures of the account, newest first."""
    page = await visit.services.erasures.page(visit.caller, _account(visit), visit.listing())
    return visit.render("erasures/list.html", tab="erasures", erasures=page.items, next=visit.cursor(page.next_key))


async def new(visit: Visit) -> Response:
    """Show the form that starts an erasure. If the cookie contains an unconfirmed erasure, show its preview."""
    visit.caller.require_right(Right.DATA_ERASE)
    shown = visit.shown_secret(_DRAFT)
    if shown is None:
        event = visit.query.optional("event")
        return _form(visit, ErasureDraft(event_ids=[event] if event else None))
    draft = ErasureDraft(**json.loads(shown.secret))
    try:
        counted = await visit.services.erasures.preview(visit.caller, _account(visit), draft)
    except Invalid as error:
        return _form(visit, draft, error.problems)
    return visit.render(_NEW, **_context(draft, counted))


async def preview(visit: Visit) -> Response:
    """Store the input in a cookie, and redirect to the preview of the erasure."""
    visit.caller.require_right(Right.DATA_ERASE)
    draft, problems = _read(await visit.form())
    if not problems:
        try:
            await visit.services.erasures.preview(visit.caller, _account(visit), draft)
        except Invalid as error:
            problems = [*error.problems]
    if problems:
        return _form(visit, draft, problems)
    kept = {"object_id": draft.object_id, "event_ids": draft.event_ids}
    return visit.leave_with_secret(visit.path("settings", "erasures", "new"), _DRAFT, json.dumps(kept))


async def create(visit: Visit) -> Response:
    """Start an erasure."""
    visit.caller.require_right(Right.DATA_ERASE)
    sent = await visit.form()
    draft, problems = _read(sent)
    if not sent.flag("confirmed"):
        text = "Confirm that you want to erase the events."
        return visit.leave(visit.path("settings", "erasures", "new"), problem=text)
    try:
        erasure, _ = await visit.services.erasures.create(
            visit.caller, _account(visit), draft, idempotency_key=key_of(sent), problems=problems
        )
    except Invalid as error:
        return _form(visit, draft, error.problems)
    visit.hide_secret()
    path = visit.path("settings", "erasures", ids.prefixed(ids.ERASURE, erasure.id))
    return visit.leave(path, "Erasure started.")


async def shown(visit: Visit) -> Response:
    """Show an erasure. After the erasure is complete, the page is its receipt."""
    erasure = await visit.services.erasures.get(visit.caller, _account(visit), visit.parameter("erasure"))
    return visit.render("erasures/erasure.html", erasure=erasure)


def _account(visit: Visit) -> str:
    assert visit.account is not None
    return ids.prefixed(ids.ACCOUNT, visit.account.id)


def _read(sent: Form) -> tuple[ErasureDraft, list[Problem]]:
    event_ids = [each for each in _SEPARATORS.split(sent.raw("event_ids")) if each]
    problems: list[Problem] = []
    if len(event_ids) > EVENT_IDS_MAX:
        text = f"Enter at most {EVENT_IDS_MAX} event IDs. To erase more at once, use the API."
        problems.append(Problem("event_ids", "too_many", text))
    return ErasureDraft(sent.optional("object_id"), event_ids or None), problems


def _form(visit: Visit, draft: ErasureDraft, problems: Sequence[Problem] = ()) -> Response:
    context = _context(draft)
    return visit.refuse(_NEW, problems, **context) if problems else visit.render(_NEW, **context)


def _context(draft: ErasureDraft, preview: ErasurePreview | None = None) -> dict[str, Any]:
    return {"draft": draft, "preview": preview, "events_max": EVENT_IDS_MAX}


PAGES: Final = (
    account_page("/settings/erasures", listed),
    account_form("/settings/erasures", create),
    account_page("/settings/erasures/new", new),
    account_form("/settings/erasures/preview", preview, back="/settings/erasures/new"),
    account_page("/settings/erasures/{erasure}", shown),
)
