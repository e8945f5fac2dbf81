"""Fuzzer of malformed requests: `python tests/receiver/fuzz.py [COUNT] [SEED]` counts the results.

The fuzzer exits with 1 at the first request whose result is neither an event nor WebhookVerificationError. The output
shows how to repeat the request.
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
    rng = random.Random(number * 1_000_003 + seed)
    body = _body(rng)
    signed: dict[Any, Any] = dict(_SIGNED)
    if isinstance(body, bytes) and rng.random() < 0.7:
        signed = dict(
            sign(body, rng.choice((SECRET, CHOSEN)), timestamp=int(_NOW) + rng.choice((0, 0, 0, -4000, 4000)))
        )
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 4))):
        _corrupt(signed, rng)
    return rng.choice(WEBHOOKS), body, rng.choices(_FORMS, (4, 4, 4, 1, 1, 1, 1))[0](signed, rng)


def _body(rng: random.Random) -> Any:
    kind = rng.random()
    if kind < 0.1:
        return rng.choice(ODD)
    if kind < 0.3:
        return b"".join(rng.choices(PIECES, k=rng.randrange(12)))
    if kind < 0.32:
        return rng.choice((b"[", b'{"a":', b"9", b'"')) * rng.choice((10, 5000))
    body = bytearray(_BODY)
    if kind < 0.6:
        envelope = json.loads(_BODY)
        name = rng.choice(("id", "object", "type", "api_version", "created", "data"))
        envelope[name] = rng.choice(
            (None, True, 5, -1, 1.5, 10**30, "", "x", "t.u", "a.b.c", [], {}, [{}], {"object": 5})
        )
        if rng.random() < 0.3:
            del envelope[rng.choice(list(envelope))]
        return json.dumps(envelope).encode()
    for _ in range(rng.randrange(4)):
        position = rng.randrange(len(body))
        if rng.random() < 0.5:
            body[position] = rng.randrange(256)
        else:
            body[position : position + rng.randrange(9)] = rng.choice(PIECES)
    return bytes(body)


def _corrupt(headers: dict[Any, Any], rng: random.Random) -> None:
    name = rng.choice(NAMES)
    value = headers.get(name)
    kind = rng.random()
    if kind < 0.3 or not isinstance(value, str):
        headers[name] = rng.choice(ODD)
    elif kind < 0.4:
        headers.pop(name)
    elif kind < 0.5:
        headers[name] = [value, rng.choice(ODD)]
    elif kind < 0.6:
        headers[name] = base64.b64encode(rng.randbytes(rng.randrange(50))).decode()
    else:
        position = rng.randrange(len(value) + 1)
        headers[name] = (
            value[:position] + rng.choice((",", " ", "=", "\n", "é", "v1,", "\ud800", "0")) + value[position + 1 :]
        )


_FORMS: Final[tuple[Callable[[dict[Any, Any], random.Random], Any], ...]] = (
    lambda headers, _: headers,
    lambda headers, _: {f"HTTP_{str(name).upper().replace('-', '_')}": value for name, value in headers.items()},
    lambda headers, _: [
        (str(name).encode(), value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value)
        for name, value in headers.items()
    ],
    lambda headers, rng: [*headers.items(), (rng.choice(NAMES).title(), rng.choice(ODD))],
    lambda headers, rng: [*headers.items(), rng.choice(ODD)],
    lambda headers, rng: {**headers, rng.choice([each for each in ODD if each.__hash__]): rng.choice(ODD)},
    lambda _, rng: rng.choice(ODD),
)
_NOW: Final = time.time()
_BODY: Final = make_event()
_SIGNED: Final = sign(_BODY, SECRET)


def run(count: int, seed: int) -> Counter[str]:
    """Return the number of requests by result. Raise AssertionError for an unexpected result."""
    results: Counter[str] = Counter()
    for number in range(count):
        webhook, body, headers = case(number, seed)
        try:
            results[type(webhook.unwrap(body, headers)).__name__] += 1
        except WebhookVerificationError as error:
            results[error.reason] += 1
        except BaseException as error:
            raise AssertionError(f"case({number}, {seed}) raised {error!r}") from error
    return results


def main() -> int:
    """Run the fuzzer with the arguments of the command line."""
    count, seed = [*map(int, sys.argv[1:]), *(COUNT, 0)[len(sys.argv) - 1 :]]
    began = time.monotonic()
    try:
        results = run(count, seed)
    except AssertionError as error:
        print(error, file=sys.stderr)
        return 1
    for name, times in results.most_common():
        print(f"{times:>10,}  {name}")
    print(f"{count:>10,}  requests in {time.monotonic() - began:.0f} s, seed {seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
