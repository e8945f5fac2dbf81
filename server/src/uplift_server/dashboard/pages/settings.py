"""The Contacts tab and the Audit log tab of the account settings."""

from typing import Any, Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.core.limits import CONTACT_EMAILS_MAX
from uplift_server.core.security.rights import Right
from uplift_server.dashboard.audit_page import audit_page
from uplift_server.dashboard.forms import changed_since, seen_versions
from uplift_server.dashboard.routes import account_form, account_page
from uplift_server.dashboard.visit import Visit
from uplift_server.service.accounts import AccountDraft
from uplift_server.service.errors import Invalid, PreconditionFailed
from uplift_server.service.versions import version_of
from uplift_server.store.records import Account

_CONTACTS: Final = "settings/contacts.html"
_LABEL: Final = "Email addresses"


async def contacts(visit: Visit) -> Response:
    """Show the contacts that receive emails about failing endpoints."""
    assert visit.account is not None
    return visit.render(_CONTACTS, **_of_contacts(visit, _current(visit.account), version_of(visit.account)))


async def change_contacts(visit: Visit) -> Response:
    """Update the contacts."""
    assert visit.account is not None
    sent = await visit.form()
    emails = sent.lines("contact_emails")
    account = ids.prefixed(ids.ACCOUNT, visit.account.id)
    try:
        draft = AccountDraft(contact_emails=emails)
        await visit.services.accounts.update(visit.caller, account, draft, versions=seen_versions(sent))
    except Invalid as error:
        context = _of_contacts(visit, sent.raw("contact_emails"), sent.text("version"))
        return visit.refuse(_CONTACTS, error.problems, **context)
    except PreconditionFailed:
        refusal = changed_since({_LABEL: sent.raw("contact_emails")}, {_LABEL: _current(visit.account)})
        context = _of_contacts(visit, sent.raw("contact_emails"), version_of(visit.account))
        return visit.render(_CONTACTS, 409, refusal=refusal, **context)
    return visit.leave(visit.path("settings", "contacts"), "Contacts saved.")


def _current(account: Account) -> str:
    return "\n".join(account.contact_emails)


def _of_contacts(visit: Visit, emails: str, version: str) -> dict[str, Any]:
    may_change = visit.caller.principal.has_right(Right.ACCOUNT_MANAGE)
    return {
        "tab": "contacts",
        "emails": emails,
        "version": version,
        "may_change": may_change,
        "most": CONTACT_EMAILS_MAX,
    }


async def audit_log(visit: Visit) -> Response:
    """Show the audit log of the account."""
    return await audit_page(visit, visit.caller, visit.path("settings", "audit-log"))


PAGES: Final = (
    account_page("/settings/contacts", contacts),
    account_form("/settings/contacts", change_contacts),
    account_page("/settings/audit-log", audit_log),
)
