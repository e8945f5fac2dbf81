"""The Contacts tab and the Audit log tab of the account settings."""

from typing import Any, Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.core.limits import CONTACT_EMAILS_MAX
from uplift_server.core.security.rights import Right
from uplift_server.dashboard.audit_page import audit_page
from uplift_server.dashboard.routes import account_form, account_page
from uplift_server.dashboard.visit import Visit
from uplift_server.service.accounts import AccountDraft
from uplift_server.service.errors import Invalid

_CONTACTS: Final = "settings/contacts.html"


async def contacts(visit: Visit) -> Response:
    """Show the contacts that receive emails about failing endpoints."""
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
    return await audit_page(visit, visit.caller, visit.path("settings", "audit-log"))


PAGES: Final = (
    account_page("/settings/contacts", contacts),
    account_form("/settings/contacts", change_contacts),
    account_page("/settings/audit-log", audit_log),
)
