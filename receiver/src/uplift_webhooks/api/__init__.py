"""Client for the HTTP API of Uplift Webhooks.

>>> from uplift_webhooks.api import Client
>>> client = Client("https://webhooks.example.com", "sk_…")   # doctest: +SKIP
>>> client.deliveries.resend("dlv_…")                          # doctest: +SKIP
"""

from uplift_webhooks.api.asynchronous import AsyncClient, AsyncReconciliation
from uplift_webhooks.api.client import KEY_VARIABLE, URL_VARIABLE, Client
from uplift_webhooks.api.endpoint_auth import ClientCertificate, EndpointAuth, OAuthClient
from uplift_webhooks.api.failures import ApiError, ApiFailure, ApiUnreachable, FieldError
from uplift_webhooks.api.pages import Instant, JsonObject, Page
from uplift_webhooks.api.reconciliation import Reconciliation

__all__ = [
    "Client",
    "AsyncClient",
    "ApiFailure",
    "ApiError",
    "ApiUnreachable",
    "FieldError",
    "Page",
    "JsonObject",
    "Instant",
    "EndpointAuth",
    "OAuthClient",
    "ClientCertificate",
    "Reconciliation",
    "AsyncReconciliation",
    "URL_VARIABLE",
    "KEY_VARIABLE",
]
