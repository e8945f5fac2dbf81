"""Test kit for receivers: sample events, signatures, and a sender.

In pytest, the fixture `uplift` is available without further configuration. `uplift_webhooks.testing.plugin` shows how
to use it.
"""

from uplift_webhooks.testing.events import make_event
from uplift_webhooks.testing.sender import Answer, Sender
from uplift_webhooks.testing.signing import sign

__all__ = ["sign", "make_event", "Sender", "Answer"]
