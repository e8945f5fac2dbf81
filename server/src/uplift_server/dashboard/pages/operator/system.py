"""System page: the server's version, database, configuration and checks."""

from typing import Final

from starlette.responses import Response

from uplift_server.core.operations.findings import Finding
from uplift_server.dashboard.routes import operator_page
from uplift_server.dashboard.visit import Visit

SHOWN_AS: Final = {"ok": ("healthy", "ok"), "warn": ("warned", "warning"), "fail": ("failed", "failed")}


async def system(visit: Visit) -> Response:
    """Show the system page without running the checks."""
    return _page(visit, None)


async def examined(visit: Visit) -> Response:
    """Run the checks and show the page with their results. The checks take several seconds."""
    return _page(visit, await visit.dashboard.system.run_checks(visit.caller))


def _page(visit: Visit, findings: list[Finding] | None) -> Response:
    facts = visit.dashboard.system.facts(visit.caller)
    return visit.render(
        "operator/system.html",
        facts=facts,
        uptime_s=(visit.services.context.now() - facts.started_at) / 1000,
        findings=findings,
        failed=sum(each.result == "fail" for each in findings or ()),
        warned=sum(each.result == "warn" for each in findings or ()),
        shown_as=SHOWN_AS,
    )


PAGES: Final = (operator_page("/system", system), operator_page("/system/checks", examined))
