"""A client that uses the server's HTTP sender alone, without the engine and the store.

    python -m bench.clients.sender PORT PATH CONNECTIONS SECS [--signed]       prints one JSON line

With `--signed`, every request has its own timestamp, signatures and headers, as in the engine.
"""

import asyncio
import json
import resource
import sys
import time
import uuid
from collections.abc import Callable

import uvloop

from bench.clients.request import EVENT_ID, body, raw
from uplift_server.core.http.addresses import AddressPolicy
from uplift_server.core.http.exchange import Exchange
from uplift_server.core.http.request_headers import request_headers_template
from uplift_server.core.security.signing import Signer
from uplift_server.delivery.sending.http import Request, Resolver, Sender, SenderSettings, Target

_WARM_UP_S = 0.5


class Posting:
    """Requests of the sender, with several in flight."""

    def __init__(self, sender: Sender, make: Callable[[], Request]) -> None:
        self._sender = sender
        self._make = make
        self.answers = 0
        self.failures = 0
        self.going = True

    def begin(self) -> None:
        """Send a request, and another after each response."""
        self._sender.send(self._make(), self._done)

    def _done(self, _request: Request, exchange: Exchange) -> None:
        if exchange.failure is None:
            self.answers += 1
        else:
            self.failures += 1
        if self.going:
            self._sender.send(self._make(), self._done)


def _fixed(port: int, path: str) -> Callable[[], Request]:
    target, content = Target("127.0.0.1", port, encrypted=False), body()
    head = raw(port, path).removesuffix(content)
    return lambda: Request(target, head, content, None)


def _signed(port: int, path: str) -> Callable[[], Request]:
    target, content = Target("127.0.0.1", port, encrypted=False), body()
    secret = "whsec_" + "A" * 43 + "="
    signer = Signer([secret], secret)
    template = request_headers_template(
        path=path, host_header=f"127.0.0.1:{port}", user_agent="Uplift-Webhooks/bench", custom={}, endpoint_id=bytes(16)
    )
    event_id, event_hex = EVENT_ID.encode(), uuid.UUID(EVENT_ID).hex.encode()

    def make() -> Request:
        timestamp = b"%d" % time.time()
        head = template.render(
            event_id=event_id,
            event_hex=event_hex,
            event_type=b"movement.analytics.created",
            number=1,
            timestamp=timestamp,
            signatures=signer.sign(event_id, timestamp, content),
            body_bytes=len(content),
        )
        return Request(target, head + template.custom, content, None)

    return make


async def _main(port: int, path: str, connections: int, secs: float, *, signed: bool) -> None:
    settings = SenderSettings()
    resolver = Resolver(settings)
    sender = Sender(settings, AddressPolicy(allow_private_networks=True), resolver)
    await sender.start()
    posting = Posting(sender, (_signed if signed else _fixed)(port, path))
    for _ in range(connections):
        posting.begin()
    await asyncio.sleep(_WARM_UP_S)
    before, began, answers = resource.getrusage(resource.RUSAGE_SELF), time.monotonic(), posting.answers
    await asyncio.sleep(secs)
    after, elapsed, answers = (
        resource.getrusage(resource.RUSAGE_SELF),
        time.monotonic() - began,
        posting.answers - answers,
    )
    posting.going = False
    failures = posting.failures
    await sender.close()
    await resolver.close()
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"requests": answers, "secs": elapsed, "cpu_s": used, "failures": failures}))


if __name__ == "__main__":
    uvloop.run(
        _main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), signed="--signed" in sys.argv[5:])
    )
