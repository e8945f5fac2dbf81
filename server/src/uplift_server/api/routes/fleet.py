"""The route that returns the state of the server and all endpoints."""

from fastapi import APIRouter

from uplift_server.api.fleet_rendering import FleetView, fleet_view
from uplift_server.api.reading import CallerOf, ServicesOf

router = APIRouter(tags=["Server"])


@router.get("/v1/fleet", summary="Get the problems of the server and its endpoints")
async def get_fleet(services: ServicesOf, caller: CallerOf) -> FleetView:
    """Requires an operator key.

    Returns the state of the server and of all endpoints, as on the dashboard page **Fleet**.
    """
    return fleet_view(await services.operator_overview.state(caller))
