"""The route for the audit log."""

from typing import Annotated

from fastapi import APIRouter, Depends

from uplift_server.api.queries import AuditQuery
from uplift_server.api.reading import CallerOf, ParsedQuery, QueryReader, ServicesOf
from uplift_server.api.rendering import audit_view, listed
from uplift_server.api.views import AuditEntryView, Listed
from uplift_server.store.audit import AuditFilter

router = APIRouter(tags=["Audit log"])


@router.get("/v1/audit-log", summary="List audit log entries", response_model_exclude_unset=True)
async def list_audit_log(
    services: ServicesOf, caller: CallerOf, parsed: Annotated[ParsedQuery, Depends(QueryReader(AuditQuery))]
) -> Listed[AuditEntryView]:
    """Requires the scope `endpoints:read`. Returns audit log entries, newest first."""
    values: AuditQuery = parsed.values
    filters = AuditFilter(values.actor, values.action, values.created_after, values.created_before, values.subject)
    page = await services.audit_log.page(caller, filters, values.listing(), problems=parsed.problems)
    return listed(page, lambda entry: audit_view(entry, spans=caller.spans_accounts), services.context)
