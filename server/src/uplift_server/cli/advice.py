"""How to fix failed calls of the API, in the words of `uplift-server`."""

import re
from typing import Final

from uplift_webhooks.cli.kit.calls import Advice

REMEDY_WITHOUT_KEY: Final = (
    "set UPLIFT_OPERATOR_KEY to the key that the server was started with, or to the key that its first start printed"
)
_CALLS: Final = re.compile(r"GET /v1/((?:event-types|endpoints|accounts|deliveries)(?:/[a-z0-9_.]*[a-z0-9_])?)")


def _with_commands(text: str) -> str:
    """Replace API calls in a sentence of the API by commands."""
    return _CALLS.sub(lambda call: f"`uplift-server {call[1].replace('/', ' ')}`", text)


ADVICE: Final = Advice(
    address="UPLIFT_HOST and UPLIFT_PORT",
    key="UPLIFT_OPERATOR_KEY",
    unreachable="start the server with `uplift-server serve`, or set UPLIFT_HOST and UPLIFT_PORT to its address",
    server_error="look at the server's log",
    remedies={
        "idempotency_conflict": "use another --idempotency-key, or send exactly the same event as before",
        401: REMEDY_WITHOUT_KEY,
        403: "use an operator key, or a key with the named scope",
        404: "list the existing ones with `uplift-server accounts`, `endpoints` or `deliveries`",
        409: "check its current state, then decide",
        413: "send less at a time",
        429: "try again in a moment",
        503: "try again in a moment; `uplift-server doctor` tells more",
    },
    lists={
        "account": "`uplift-server accounts`",
        "key": "`uplift-server keys --account ACCOUNT`",
        "member": "`uplift-server members --account ACCOUNT`",
        "invitation": "`uplift-server member invitations --account ACCOUNT`",
        "endpoint": "`uplift-server endpoints`",
        "delivery": "`uplift-server deliveries`",
        "event": "`uplift-server deliveries --json`",
        "event type": "`uplift-server event-types`",
        "replay": "`uplift-server replay list`",
    },
    rewrite=_with_commands,
)
