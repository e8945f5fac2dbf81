"""The sender: an HTTP/1.1 client made for one job, posting signed bodies to addresses that were vetted."""

from uplift_server.delivery.sender.client import Sender
from uplift_server.delivery.sender.request import Done, Request, Target
from uplift_server.delivery.sender.resolver import ResolutionFailed, Resolver
from uplift_server.delivery.sender.settings import SenderSettings

__all__ = ["Sender", "SenderSettings", "Resolver", "ResolutionFailed", "Request", "Target", "Done"]
