"""The HTTP API: wording, shapes and status codes around what the services do."""

from typing import Any


def openapi_document() -> dict[str, Any]:
    """The OpenAPI document, without a server."""
    # The modules beside this one that know no framework stay quick to import.
    from uplift_server.api.app import document  # noqa: PLC0415

    return document()
