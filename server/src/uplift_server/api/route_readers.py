"""The readers of routes. Only this module uses the private attribute of FastAPI's routes that contains them."""

from fastapi.routing import APIRoute


def readers_of(route: APIRoute) -> list[object]:
    """Return the dependencies of a route, such as its BodyReader and its QueryReader."""
    return [each.call for each in route.dependant.dependencies]
