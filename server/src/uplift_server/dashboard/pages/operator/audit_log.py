"""Audit log of all accounts."""

from typing import Final

from starlette.responses import Response

from uplift_server.core.problems import Problem
from uplift_server.dashboard.account_filter import filtered_caller
from uplift_server.dashboard.audit_page import audit_page
from uplift_server.dashboard.routes import operator_page
from uplift_server.dashboard.visit import Visit


async def audit_log(visit: Visit) -> Response:
    """Show the audit log of all accounts. If the URL selects an account, show only the entries of that account."""
    problems: list[Problem] = []
    return await audit_page(visit, filtered_caller(visit, problems), "/operator/audit-log", problems)


PAGES: Final = (operator_page("/audit-log", audit_log),)
