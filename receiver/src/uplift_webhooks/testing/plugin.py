"""Fixtures for pytest, which finds them automatically.

>>> @pytest.fixture                                             # doctest: +SKIP
... def uplift_receiver():
...     return app            # WSGI, ASGI, or a test client
>>> def test_an_event_is_handled_once(uplift):                  # doctest: +SKIP
...     first, second = uplift.post_twice()
...     assert first.accepted and second.accepted
"""

import os
from typing import Any

import pytest

from uplift_webhooks.testing.sender import PATH, Sender
from uplift_webhooks.webhook import SECRET_VARIABLE

SECRET = "whsec_dGhpcyBzZWNyZXQgaXMgZm9yIHRlc3RzIG9ubHksIG5vdCA="  # noqa: S105 - for tests only
"""The secret that tests use if `UPLIFT_WEBHOOK_SECRET` is not set."""


@pytest.fixture
def uplift_secret() -> str:
    """Secret that signs events: the first secret in `UPLIFT_WEBHOOK_SECRET`, or a built-in test secret.

    Override this fixture to use your own secret.
    """
    return next(iter(os.environ.get(SECRET_VARIABLE, "").split()), SECRET)


@pytest.fixture
def uplift_path() -> str:
    """Path of the receiver. Override this fixture if the path is not `/webhook`."""
    return PATH


@pytest.fixture
def uplift_receiver() -> Any:
    """Your application or test client. You must override this fixture."""
    raise pytest.UsageError(
        "Define a fixture uplift_receiver that returns your WSGI or ASGI application, or the test client of your "
        "framework."
    )


@pytest.fixture
def uplift(uplift_receiver: Any, uplift_secret: str, uplift_path: str) -> Sender:
    """Return a sender of test webhooks to your receiver.

    Its methods are `post`, `post_twice`, `post_out_of_order` and `post_with_bad_signature`.
    """
    return Sender(uplift_receiver, uplift_secret, uplift_path)
