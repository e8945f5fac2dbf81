"""Test kit for receivers: sample events, signatures, and a sender.

In pytest, define the fixture `uplift_receiver`, then use the fixture `uplift` in your tests. For an example, see
`uplift_webhooks.testing.plugin`.
"""

from uplift_webhooks.testing.events import make_event
from uplift_webhooks.testing.sender import Answer, Sender
from uplift_webhooks.testing.signing import sign

__all__ = ["sign", "make_event", "Sender", "Answer"]
