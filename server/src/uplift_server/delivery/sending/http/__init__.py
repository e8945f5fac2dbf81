"""HTTP/1.1 client that sends signed POST requests to allowed addresses only."""

from uplift_server.delivery.sending.http.client import Sender
from uplift_server.delivery.sending.http.request import Done, Request
from uplift_server.delivery.sending.http.resolver import ResolutionFailed, Resolver
from uplift_server.delivery.sending.http.settings import SenderSettings
from uplift_server.delivery.targets import Target

__all__ = ["Sender", "SenderSettings", "Resolver", "ResolutionFailed", "Request", "Target", "Done"]
