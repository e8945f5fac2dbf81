"""Fuzzer of malformed requests: `python tests/receiver/fuzz.py [COUNT] [SEED]` counts the results.

The exit code is 1 at the first request with another result than an event or WebhookVerificationError. The output shows
how to repeat it.
"""

import base64
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from uplift_webhooks import Webhook, WebhookVerificationError
from uplift_webhooks.testing import make_event, sign

SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
CHOSEN: Final = "0123456789abcdef"
COUNT: Final = 1_000_000
NAMES: Final = ("webhook-id", "webhook-timestamp", "webhook-signature", "x-uplift-signature-256")
ODD: Final[tuple[Any, ...]] = (
    *(None, True, 0, -1, 1.5, float("nan"), 10**400, b"", b"\xff\x00", "", "\ud800", "é", "²", "\x00", "\r\n", " "),
    *((), [], {}, [None], [b"v1,"], ["a", "b"], object(), object, memoryview(b"x"), bytearray(b"x"), 1j, ..., len),
    *("v1,", "v1,,", "v1", "v1,=", "v1a,x", "sha256=", "sha256=zz"),
    *("9" * 15, "9" * 16, "-5", "+5", "1e9", "0x10", "v1, " * 20),
)  # fmt: skip
PIECES: Final = (
    *(b"{", b"}", b"[", b"]", b'"', b":", b",", b"\\", b"\\u", b"\\ud800", b"null", b"true", b"NaN", b"-Infinity"),
    *(b"\xff", b"\xef\xbb\xbf", b"\x00", b"9" * 50, b"1e999"),
    *(b'"id"', b'"data"', b'"created"', b'"type"', b"\xf0\x9f\x8f\x80", b" "),
)  # fmt: skip
WEBHOOKS: Final = (
    Webhook(SECRET, tolerance_seconds=3600),
    Webhook([SECRET, CHOSEN], tolerance_seconds=3600, allow_uplift_signature=True),
    Webhook(CHOSEN, tolerance_seconds=float("inf"), allow_uplift_signature=True),
)


def case(number: int, seed: int) -> tuple[Webhook, Any, Any]:
    """Return request `number` of a seed: its verifier, body and headers."""
    chance = random.Random(number * 1_000_003 + seed)
    body = _body(chance)
    signed: dict[Any, Any] = dict(_SIGNED)
    if isinstance(body, bytes) and chance.random() < 0.7:
        signed = dict(
            sign(body, chance.choice((SECRET, CHOSEN)), timestamp=int(_NOW) + chance.choice((0, 0, 0, -4000, 4000)))
        )
    for _ in range(chance.choice((0, 0, 0, 1, 1, 2, 4))):
        _spoil(signed, chance)
    return chance.choice(WEBHOOKS), body, chance.choices(_FORMS, (4, 4, 4, 1, 1, 1, 1))[0](signed, chance)


def _body(chance: random.Random) -> Any:
    kind = chance.random()
    if kind < 0.1:
        return chance.choice(ODD)
    if kind < 0.3:
        return b"".join(chance.choices(PIECES, k=chance.randrange(12)))
    if kind < 0.32:
        return chance.choice((b"[", b'{"a":', b"9", b'"')) * chance.choice((10, 5000))
    body = bytearray(_BODY)
    if kind < 0.6:
        envelope = json.loads(_BODY)
        name = chance.choice(("id", "object", "type", "api_version", "created", "data"))
        envelope[name] = chance.choice(
            (None, True, 5, -1, 1.5, 10**30, "", "x", "t.u", "a.b.c", [], {}, [{}], {"object": 5})
        )
        if chance.random() < 0.3:
            del envelope[chance.choice(list(envelope))]
        return json.dumps(envelope).encode()
    for _ in range(chance.randrange(4)):
        position = chance.randrange(len(body))
        if chance.random() < 0.5:
            body[position] = chance.randrange(256)
        else:
            body[position : position + chance.randrange(9)] = chance.choice(PIECES)
    return bytes(body)


def _spoil(headers: dict[Any, Any], chance: random.Random) -> None:
    name = chance.choice(NAMES)
    value = headers.get(name)
    kind = chance.random()
    if kind < 0.3 or not isinstance(value, str):
        headers[name] = chance.choice(ODD)
    elif kind < 0.4:
        headers.pop(name)
    elif kind < 0.5:
        headers[name] = [value, chance.choice(ODD)]
    elif kind < 0.6:
        headers[name] = base64.b64encode(chance.randbytes(chance.randrange(50))).decode()
    else:
        position = chance.randrange(len(value) + 1)
        headers[name] = (
            value[:position] + chance.choice((",", " ", "=", "\n", "é", "v1,", "\ud800", "0")) + value[position + 1 :]
        )


_FORMS: Final[tuple[Callable[[dict[Any, Any], random.Random], Any], ...]] = (
    lambda headers, _: headers,
    lambda headers, _: {f"HTTP_{str(name).upper().replace('-', '_')}": value for name, value in headers.items()},
    lambda headers, _: [
        (str(name).encode(), value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value)
        for name, value in headers.items()
    ],
    lambda headers, chance: [*headers.items(), (chance.choice(NAMES).title(), chance.choice(ODD))],
    lambda headers, chance: [*headers.items(), chance.choice(ODD)],
    lambda headers, chance: {**headers, chance.choice([each for each in ODD if each.__hash__]): chance.choice(ODD)},
    lambda _, chance: chance.choice(ODD),
)
_NOW: Final = time.time()
_BODY: Final = make_event()
_SIGNED: Final = sign(_BODY, SECRET)


def run(count: int, seed: int) -> Counter[str]:
    """Count the results. Raises AssertionError for an unexpected one."""
    ends: Counter[str] = Counter()
    for number in range(count):
        webhook, body, headers = case(number, seed)
        try:
            ends[type(webhook.unwrap(body, headers)).__name__] += 1
        except WebhookVerificationError as error:
            ends[error.reason] += 1
        except BaseException as error:
            raise AssertionError(f"case({number}, {seed}) raised {error!r}") from error
    return ends


def main() -> int:
    """Run the fuzzer with the arguments of the command line."""
    count, seed = [*map(int, sys.argv[1:]), *(COUNT, 0)[len(sys.argv) - 1 :]]
    began = time.monotonic()
    try:
        ends = run(count, seed)
    except AssertionError as error:
        print(error, file=sys.stderr)
        return 1
    for name, times in ends.most_common():
        print(f"{times:>10,}  {name}")
    print(f"{count:>10,}  requests in {time.monotonic() - began:.0f} s, seed {seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
