"""The HTTP API: request and response models, status codes and errors around the services."""

from typing import Any


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document without starting a server."""
    # Imported here, so that modules without the framework stay fast to import.
    from uplift_server.api.app import document  # noqa: PLC0415

    return document()
