"""Test kit for receivers: sample events, signatures, and a sender.

With pytest, the fixture `uplift` is available automatically. `uplift_webhooks.testing.plugin` shows how to use it.
"""

from uplift_webhooks.testing.events import make_event
from uplift_webhooks.testing.sender import Answer, Sender
from uplift_webhooks.testing.signing import sign

__all__ = ["sign", "make_event", "Sender", "Answer"]
