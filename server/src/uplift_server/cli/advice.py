"""Messages that explain how to fix failed API calls of `uplift-server`."""

import re
from typing import Final

from uplift_webhooks.cli.kit.calls import Advice

REMEDY_WITHOUT_KEY: Final = (
    "set UPLIFT_OPERATOR_KEY to the server's operator key; the first `serve` stored it in operator.key (SQLite) or"
    " printed it (PostgreSQL)"
)
_CALLS: Final = re.compile(r"GET /v1/((?:event-types|endpoints|accounts|deliveries)(?:/[a-z0-9_.]*[a-z0-9_])?)")


def _with_commands(text: str) -> str:
    return _CALLS.sub(lambda call: f"`uplift-server {call[1].replace('/', ' ')}`", text)


ADVICE: Final = Advice(
    address="UPLIFT_HOST and UPLIFT_PORT",
    key="UPLIFT_OPERATOR_KEY",
    unreachable="start the server with `uplift-server serve`, or correct UPLIFT_HOST and UPLIFT_PORT",
    server_error="check the server's log",
    remedies={
        "idempotency_conflict": "use a new --idempotency-key, or send the same event as before",
        401: REMEDY_WITHOUT_KEY,
        403: "use an operator key, or a key with the required scope",
        404: "list the existing objects, for example with `uplift-server accounts` or `uplift-server endpoints`",
        409: "check the current state, then try again",
        413: "send less data in one request",
        429: "try again in a moment",
        503: "try again in a moment; for details, run `uplift-server doctor`",
    },
    lists={
        "account": "`uplift-server accounts`",
        "key": "`uplift-server keys --account ACCOUNT`",
        "member": "`uplift-server members --account ACCOUNT`",
        "invitation": "`uplift-server members invitations --account ACCOUNT`",
        "endpoint": "`uplift-server endpoints`",
        "delivery": "`uplift-server deliveries`",
        "event": "`uplift-server events`",
        "event type": "`uplift-server event-types`",
        "rejected event": "`uplift-server rejected-events`",
        "replay": "`uplift-server replays list`",
    },
    rewrite=_with_commands,
)
