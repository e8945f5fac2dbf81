"""The HTTP API: converts requests to service calls, and the results and errors of these calls to responses."""

from typing import Any


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document without starting a server."""
    # Import FastAPI only here, because FastAPI would slow down every import of this package.
    from uplift_server.api.app import document  # noqa: PLC0415

    return document()
