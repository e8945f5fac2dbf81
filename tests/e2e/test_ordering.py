"""`kill -9` under load: an ordered endpoint gets the events of each key in order."""

import random
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

from . import receiving
from .harness import TYPE, Api, serving, wait_for
from .receiving import Receiver

KILLS = 3
SEED = 20261129
KEYS = tuple("abcde")


def send_in_order(api: Api, key: str, stopping: threading.Event, accepted: dict[str, list[str]]) -> None:
    """Send numbered events with a key, one after another. Repeat requests without a response."""
    number = 0
    while not stopping.wait(0.03):
        event = {
            "type": TYPE,
            "data": {"key": key, "number": number},
            "ordering_key": key,
            "idempotency_key": f"{key}-{number}",
        }
        while (response := api("POST", "/v1/events", event)).status != 202:
            time.sleep(0.02)
        accepted[key].append(response.json["id"])
        number += 1


def delivered(receiver: Receiver) -> list[str]:
    """Return the delivered events in the order of their first success, which is their second attempt."""
    seen: Counter[str] = Counter()
    order = []
    for request in receiver.on("/ordered"):
        event = request.headers["webhook-id"]
        seen[event] += 1
        if seen[event] == 2:
            order.append(event)
    return order


def test_the_order_of_each_key_survives_kills(tmp_path: Path, receiver: Receiver) -> None:
    """Every first attempt fails, so each delivery blocks the next ones of its key for a while."""
    rng = random.Random(SEED)
    settings = {"UPLIFT_RETRY_SCHEDULE": ",".join(["50ms"] * 20), "UPLIFT_BREAKER_FAILURES": "0"}
    accepted: dict[str, list[str]] = defaultdict(list)
    with serving(tmp_path / "data", **settings) as server:
        account, api = server.account()
        api.endpoint(receiver.url("/ordered", receiving.after_failing(1)), event_types=[TYPE], ordering="key")
        stopping = threading.Event()
        callers = [
            threading.Thread(target=send_in_order, args=(server.api(account=account), key, stopping, accepted))
            for key in KEYS
        ]
        for caller in callers:
            caller.start()
        for _ in range(KILLS):
            time.sleep(rng.uniform(0.3, 0.9))
            server.kill()
            server.start()
        time.sleep(0.5)
        stopping.set()
        for caller in callers:
            caller.join(30)

        expected = {event for events in accepted.values() for event in events}
        assert len(expected) > 20 * KILLS, "too few events were accepted"

        wait_for(lambda: expected <= set(delivered(receiver)), "all events arrive", 20, every=0.2)
        order = delivered(receiver)
        for key, events in accepted.items():
            own = [event for event in order if event in set(events)]
            assert own == events, f"an event with the key {key} overtook an earlier one"
