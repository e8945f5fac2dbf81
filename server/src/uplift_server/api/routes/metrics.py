"""The route that returns metrics for monitoring."""

import asyncio
import importlib
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from uplift_server.api.reading import ServicesOf

router = APIRouter(tags=["Server"])
_EXPOSITION: Final = "uplift_server.observe.exposition"


@router.get("/metrics", summary="Read metrics", response_class=PlainTextResponse)
async def get_metrics(request: Request, services: ServicesOf) -> Response:
    """Requires an operator key or the token `UPLIFT_METRICS_TOKEN`.

    Returns metrics in Prometheus or OpenMetrics format.
    """
    authorization = request.headers.get("authorization")
    services.metrics.require_reader(None if authorization is None else authorization.encode("latin-1"))
    snapshot = await services.metrics.snapshot()
    # Import on the first request, because many servers have no monitoring.
    exposition: Any = await asyncio.to_thread(importlib.import_module, _EXPOSITION)
    body, content_type = exposition.render(snapshot, request.headers.get("accept", ""))
    return Response(body, headers={"content-type": content_type})
