"""Audit log of all accounts."""

from typing import Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.core.problems import Problem
from uplift_server.dashboard.audit_page import audit_page
from uplift_server.dashboard.routes import operator_page
from uplift_server.dashboard.visit import Visit
from uplift_server.store.records import Account

_PATH: Final = "/operator/audit-log"


async def audit_log(visit: Visit) -> Response:
    """Show the audit log of all accounts, or of the account in the URL."""
    assert visit.visitor is not None
    caller, problems, text = visit.caller, [], visit.query.text("account")
    if text:
        account = _find(visit, text)
        if account is None:
            problems.append(Problem("account", "account_unknown", "No account has this ID or name."))
        else:
            caller = visit.visitor.caller(ids.prefixed(ids.ACCOUNT, account.id), visit.address)
    return await audit_page(visit, caller, _PATH, problems)


def _find(visit: Visit, text: str) -> Account | None:
    """Return the account with this ID or name."""
    cache, account_id = visit.services.context.cache, ids.parse_prefixed(ids.ACCOUNT, text)
    if account_id is not None:
        return cache.accounts_by_id.get(account_id)
    return next((each for each in cache.accounts.values() if each.name == text), None)


PAGES: Final = (operator_page("/audit-log", audit_log),)
