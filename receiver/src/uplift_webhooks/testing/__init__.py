"""Test tools for receivers: events, signatures, and a sender with Uplift's good and bad behavior.

With pytest, the fixture `uplift` is available after the installation; see `uplift_webhooks.testing.plugin`.
"""

from uplift_webhooks.testing.events import make_event
from uplift_webhooks.testing.sender import Answer, Sender
from uplift_webhooks.testing.signing import sign

__all__ = ["sign", "make_event", "Sender", "Answer"]
