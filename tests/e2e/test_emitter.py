"""The library's emitter despite kills of the server: every event is accepted once, in the order of `send`."""

import threading
from itertools import count
from pathlib import Path

from uplift_webhooks import Emitter

from .harness import OPERATOR_KEY, TYPE, serving

EVENTS = 3_000
KILLS = 3


def test_events_are_accepted_once_in_order_through_kills(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        account, _ = server.account()
        done = threading.Event()

        def kill() -> None:
            for number in count(1):
                if done.wait(0.4) or number > KILLS:
                    return
                server.kill()
                server.start()

        killer = threading.Thread(target=kill)
        killer.start()
        with Emitter(server.url, OPERATOR_KEY, account, waiting_events_max=200) as emitter:
            for number in range(EVENTS):
                emitter.send(TYPE, {"number": number})
                if number % 100 == 0:
                    done.wait(0.02)
        done.set()
        killer.join()

        assert emitter.accepted == EVENTS
        rows = server.place.query("SELECT body FROM events ORDER BY seq")
        numbers = [int(body.split(b'"number":')[1].split(b"}")[0]) for (body,) in rows]
        assert numbers == list(range(EVENTS))
