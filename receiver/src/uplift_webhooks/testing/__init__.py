"""For the tests of receivers: events, signatures, and a sender that behaves as Uplift does, well or badly.

With pytest, the fixture `uplift` is there as soon as the library is installed; see `uplift_webhooks.testing.plugin`.
"""

from uplift_webhooks.testing.events import make_event
from uplift_webhooks.testing.sender import Answer, Sender
from uplift_webhooks.testing.signing import sign

__all__ = ["sign", "make_event", "Sender", "Answer"]
