"""Rotations under traffic: with the old and new secrets, a receiver verifies both signatures of every request."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from uplift_server.core.timestamps import parse_timestamp
from uplift_webhooks import Webhook, WebhookVerificationError

from .harness import Api, Server, serving, wait_for
from .receiving import Connection, Received, Receiver, respond

CHOSEN = "a-token-of-my-own-choice"
PHASE_S = 0.8
"""Duration of the load in each state of the secrets."""
IN_FLIGHT_S = 0.5
"""Time after which requests signed with an earlier secret have arrived."""
UPLIFT_HEADER = "x-uplift-signature-256"
_good, _bad = respond(200), respond(401)


class VerifyingReceiver:
    """A receiver that verifies each request twice: by Standard Webhooks and by the Uplift header."""

    def __init__(self, secret: str) -> None:
        self.secrets: Sequence[str] = (secret,)
        self.rejected: list[str] = []
        self.signed_by: Counter[str] = Counter()
        """The number of requests that each secret signed in the Uplift header."""
        self.tokens: Counter[int] = Counter()

    def __call__(self, connection: Connection, received: Received) -> bool:
        """Respond with 200 if both signatures verify, else 401."""
        secrets = self.secrets
        uplift_header_only = {UPLIFT_HEADER: received.headers[UPLIFT_HEADER]}
        try:
            Webhook(secrets).verify(received.body, received.headers)
            Webhook(secrets, allow_uplift_signature=True).verify(received.body, uplift_header_only)
        except WebhookVerificationError as error:
            self.rejected.append(str(error))
            return _bad(connection, received)
        self.tokens[len(received.headers["webhook-signature"].split())] += 1
        self.signed_by[next(each for each in secrets if _signs(each, received, uplift_header_only))] += 1
        return _good(connection, received)


def _signs(secret: str, received: Received, headers: dict[str, str]) -> bool:
    try:
        Webhook(secret, allow_uplift_signature=True).verify(received.body, headers)
    except WebhookVerificationError:
        return False
    return True


class Load:
    """Sends events until stopped."""

    def __init__(self, api: Api) -> None:
        self.sent: list[str] = []
        self._api = api
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(2)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(20)

    def _send(self) -> None:
        while not self._stopping.wait(0.005):
            found = self._api.send(len(self.sent))
            assert found.status == 202, found
            self.sent.append(found.json["id"])


def test_rotations_under_load_cause_no_failed_verification(server: Server, receiver: Receiver) -> None:
    _, api = server.account()
    endpoint = api.endpoint("http://127.0.0.1:9/not-yet")
    first, path = endpoint["secret"], f"/v1/endpoints/{endpoint['id']}/secret"
    verifying_receiver = VerifyingReceiver(first)
    api.ok("PATCH", f"/v1/endpoints/{endpoint['id']}", {"url": receiver.url("/secrets", verifying_receiver)})
    with Load(api) as load:
        time.sleep(PHASE_S)
        # A custom secret: the receiver knows it before the rotation.
        verifying_receiver.secrets = (first, CHOSEN)
        api.ok("POST", f"{path}/rotate", {"secret": CHOSEN})
        time.sleep(PHASE_S)
        assert verifying_receiver.signed_by.keys() == {first}
        # A generated secret: the receiver knows it only after the response. The rotation drops the oldest secret. The
        # receiver discards the oldest secret when all requests with its signature have arrived.
        made = api.ok("POST", f"{path}/rotate")["secret"]
        time.sleep(IN_FLIGHT_S)
        verifying_receiver.secrets = (CHOSEN, made)
        time.sleep(PHASE_S)
        assert verifying_receiver.signed_by.keys() == {first, CHOSEN}
        api.ok("POST", f"{path}/expire-old")
        time.sleep(IN_FLIGHT_S)
        verifying_receiver.secrets = (made,)
        time.sleep(PHASE_S)
    wait_for(lambda: {r.headers["webhook-id"] for r in receiver.on("/secrets")} >= set(load.sent), "all events arrive")
    assert verifying_receiver.rejected == []
    assert verifying_receiver.signed_by.keys() == {first, CHOSEN, made}
    assert verifying_receiver.tokens.keys() == {1, 2}
    assert min(*verifying_receiver.signed_by.values(), *verifying_receiver.tokens.values()) >= 20
    assert len(receiver.on("/secrets")) == len(load.sent)


def test_an_overlap_ends_while_the_server_is_down(tmp_path: Path, receiver: Receiver) -> None:
    with serving(tmp_path / "data") as server:
        _, api = server.account()
        verifying_receiver = VerifyingReceiver(CHOSEN)
        endpoint = api.endpoint(receiver.url("/secrets", verifying_receiver), secret=CHOSEN)
        path = f"/v1/endpoints/{endpoint['id']}/secret"
        rotated = api.ok("POST", f"{path}/rotate", {"overlap_seconds": 1})
        server.kill()
        wait_for(lambda: time.time() * 1000 > parse_timestamp(rotated["previous_expires_at"]), "the overlap has ended")
        verifying_receiver.secrets = (rotated["secret"],)
        server.start()
        api.send(1)
        [received] = receiver.wait("/secrets", 1)
        assert len(received.headers["webhook-signature"].split()) == 1
        assert verifying_receiver.rejected == []
        assert api.ok("GET", path)["previous_expires_at"] is None
