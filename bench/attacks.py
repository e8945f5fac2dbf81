"""A separate process in which several accounts attack the server simultaneously.

    python -m bench.attacks PLAN.json       prints a line when the attacks are prepared, and starts when it reads
    a line; on SIGTERM, prints one line of JSON with the number of responses for each attack and status code, and exits

All attacks go to 127.0.0.1, over a bounded number of connections.
"""

import asyncio
import base64
import contextlib
import json
import os
import resource
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

_FANOUT_ENDPOINTS: Final = 1_000
_FANOUT_CONNECTIONS: Final = 32
_HANGING_ENDPOINTS: Final = 300
_TEST_CONNECTIONS: Final = 16
_UNFINISHED_CONNECTIONS: Final = 2_000
_SIGN_IN_CONNECTIONS: Final = 4
_LISTENERS: Final = 250
_PAUSE_S: Final = 0.005
_UNFINISHED_PAUSE_S: Final = 10.0
_TYPE: Final = "movement.analytics.created"
# Two schemas with fast validation and very large error details.
_SCHEMAS: Final[dict[str, Any]] = {
    "attack.recursive": {
        "$ref": "#/$defs/node",
        "$defs": {"node": {"oneOf": [{"const": 1}, {"type": "array", "items": {"$ref": "#/$defs/node"}}]}},
    },
    "attack.constants": {
        "properties": {"a": {"type": "array", "items": {"anyOf": [{"const": n} for n in range(1_500)]}}}
    },
}
_DATA: Final = {"attack.recursive": [[[[["x"] * 12] * 3] * 3] * 3], "attack.constants": {"a": ["x"] * 4_000}}

Attack = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Plan:
    """The target of the attacks."""

    port: int
    key: str
    """The operator key that creates the attackers' accounts."""
    receiver_port: int
    scale: float = 1.0
    """Factor for the standard numbers of connections and endpoints, such as 0.02 in a smoke run."""


class Peer:
    """A keep-alive connection with sequential requests."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(
        self, method: str, path: str, value: object = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of a response. Raises OSError or EOFError if the connection ends."""
        if isinstance(value, str):
            body, kind = value.encode(), "application/x-www-form-urlencoded"
        else:
            body, kind = (b"" if value is None else json.dumps(value).encode()), "application/json"
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._streams
            writer.write(
                _head(method, path, {"content-type": kind, "content-length": str(len(body)), **headers}) + body
            )
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            found = {name.lower(): text.strip() for name, _, text in (line.partition(":") for line in lines[1:])}
            content = await reader.readexactly(int(found.get("content-length", 0)))
        except BaseException:
            self.close()
            raise
        if found.get("connection") == "close":
            self.close()
        return int(lines[0].split()[1]), found, content

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def _head(method: str, path: str, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1"]
    lines += [f"{name.replace('_', '-')}: {text}" for name, text in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class Attacks:
    """The attackers' accounts, and their attacks."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._peer = Peer(plan.port)
        self.responses: dict[str, Counter[str]] = {}

    def _count(self, most: int) -> int:
        return max(1, round(most * self._plan.scale))

    async def prepare(self) -> list[Attack]:
        """Create the accounts and endpoints of the attacks. Return the attacks."""
        types = [name for name, schema in _SCHEMAS.items() if await self._put_type(name, schema)]
        schema_key = await self._account("Schemas", ["events:write"])
        fanout_key = await self._account("Fan-out", ["events:write", "endpoints:write"])
        await self._endpoints(fanout_key, [f"ok/fan/{n}" for n in range(self._count(_FANOUT_ENDPOINTS))])
        hang_key = await self._account("Hanging", ["events:write", "endpoints:write", "deliveries:write"])
        hanging = await self._endpoints(hang_key, [f"hang/{n}" for n in range(self._count(_HANGING_ENDPOINTS))])
        read_key = await self._account("Unfinished", ["events:read"])
        listen_keys = [await self._account(f"Listener {n}", ["listen"]) for n in range(4)]
        event = {"type": _TYPE, "data": {"object": {"name": "x" * 200}}}
        bad = [{"type": name, "data": _DATA[name]} for name in types] or [event]
        tests: list[tuple[str, object]] = [(f"/v1/endpoints/{each}/test", {}) for each in hanging]
        testers = self._count(_TEST_CONNECTIONS)
        posts = [("/v1/events", event)]
        by_name: dict[str, list[Attack]] = {
            "schemas": [partial(self._post, "schemas", schema_key, [("/v1/events", each) for each in bad])],
            "hanging events": [partial(self._post, "hanging events", hang_key, posts)],
            "fan-out": [partial(self._post, "fan-out", fanout_key, posts)] * self._count(_FANOUT_CONNECTIONS),
            "tests": [
                partial(self._post, "tests", hang_key, tests[first::testers] or tests) for first in range(testers)
            ],
            "unfinished bodies": [
                partial(self._unfinished, read_key, _UNFINISHED_PAUSE_S * number / _UNFINISHED_CONNECTIONS)
                for number in range(self._count(_UNFINISHED_CONNECTIONS))
            ],
            "sign-ins": [self._sign_in] * self._count(_SIGN_IN_CONNECTIONS),
            "listen streams": [
                partial(self._listen, listen_keys[number % len(listen_keys)])
                for number in range(self._count(_LISTENERS))
            ],
        }
        only = os.environ.get("ATTACKS")
        return [
            each for name, attacks in by_name.items() for each in attacks if only is None or name in only.split(",")
        ]

    async def _operator(self, method: str, path: str, value: object, **headers: str) -> tuple[int, Any]:
        status, _, body = await self._peer.call(
            method, path, value, authorization=f"Bearer {self._plan.key}", **headers
        )
        return status, json.loads(body)

    async def _put_type(self, name: str, schema: object) -> bool:
        status, _ = await self._operator("PUT", f"/v1/event-types/{name}", {"description": name, "schema": schema})
        return status in {200, 201}

    async def _account(self, name: str, scopes: Sequence[str]) -> str:
        _, account = await self._operator("POST", "/v1/accounts", {"name": name, "contact_emails": []})
        _, key = await self._operator(
            "POST", f"/v1/accounts/{account['id']}/keys", {"name": name, "scopes": list(scopes)}
        )
        text: str = key["key"]
        return text

    async def _endpoints(self, key: str, paths: Sequence[str]) -> list[str]:
        found = []
        for path in paths:
            url = f"http://127.0.0.1:{self._plan.receiver_port}/{path}"
            _, _, body = await self._peer.call("POST", "/v1/endpoints", {"url": url}, authorization=f"Bearer {key}")
            found.append(json.loads(body)["id"])
        return found

    # ---- the attacks

    @contextlib.asynccontextmanager
    async def _noting(self, attack: str) -> AsyncIterator[Counter[str]]:
        counts = self.responses.setdefault(attack, Counter())
        try:
            yield counts
        except (OSError, EOFError, asyncio.LimitOverrunError):
            counts["connection closed"] += 1
        await asyncio.sleep(_PAUSE_S)

    async def _post(self, attack: str, key: str, calls: Sequence[tuple[str, object]]) -> None:
        peer = Peer(self._plan.port)
        while True:
            for path, value in calls:
                async with self._noting(attack) as counts:
                    status, _, _ = await peer.call("POST", path, value, authorization=f"Bearer {key}")
                    counts[str(status)] += 1

    async def _unfinished(self, key: str, delay_s: float) -> None:
        """After a delay, repeatedly send most of a body and wait for the end of the connection.

        The delays spread the connections over time. In total, they send 50 MB/s, about half of a gigabit network.
        """
        await asyncio.sleep(delay_s)
        headers = {"authorization": f"Bearer {key}", "content_type": "application/json", "content_length": "270000"}
        while True:
            async with self._noting("unfinished bodies") as counts:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._plan.port)
                try:
                    writer.write(_head("POST", "/v1/events", headers) + b"x" * 260_000)
                    status = (await reader.readline()).split()
                    counts[status[1].decode() if status else "connection closed"] += 1
                    await reader.read()
                finally:
                    writer.close()
            await asyncio.sleep(_UNFINISHED_PAUSE_S)

    async def _sign_in(self) -> None:
        """Guess passwords for unknown email addresses."""
        peer = Peer(self._plan.port)
        cookie, token = "", ""
        while True:
            async with self._noting("sign-ins") as counts:
                if not token:
                    _, headers, page = await peer.call("GET", "/sign-in")
                    cookie = headers.get("set-cookie", "").partition(";")[0]
                    token = page.decode().partition('name="csrf" value="')[2].partition('"')[0]
                form = {"csrf": token, "email": f"{os.urandom(6).hex()}@club.example", "password": "a wrong guess"}
                status, _, _ = await peer.call("POST", "/sign-in", urlencode(form), cookie=cookie)
                counts[str(status)] += 1

    async def _listen(self, key: str) -> None:
        """Open a listen stream, and keep it open."""
        authorization = f"Bearer {key}"
        while True:
            async with self._noting("listen streams") as counts:
                peer = Peer(self._plan.port)
                status, _, body = await peer.call("POST", "/v1/listen-sessions", {}, authorization=authorization)
                peer.close()
                if status == 201:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._plan.port)
                    upgrade = {
                        "authorization": authorization,
                        "connection": "upgrade",
                        "upgrade": "websocket",
                        "sec_websocket_version": "13",
                        "sec_websocket_key": base64.b64encode(os.urandom(16)).decode(),
                    }
                    try:
                        writer.write(_head("GET", f"/v1/listen-sessions/{json.loads(body)['id']}/stream", upgrade))
                        status = int((await reader.readline()).split()[1])
                        counts[str(status)] += 1
                        while status == 101 and await reader.read(65536):
                            pass
                    finally:
                        writer.close()
                else:
                    counts[str(status)] += 1
            await asyncio.sleep(1)


async def _main(plan: Plan) -> dict[str, dict[str, int]]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    attacks = Attacks(plan)
    prepared = await attacks.prepare()
    print("prepared", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    running = [asyncio.ensure_future(attack()) for attack in prepared]
    waiting = asyncio.ensure_future(stop.wait())
    # An attack ends only with an unexpected exception. `result` raises it.
    done, _ = await asyncio.wait([waiting, *running], return_when=asyncio.FIRST_COMPLETED)
    for task in running:
        task.cancel()
    for task in done - {waiting}:
        task.result()
    return {attack: dict(counts) for attack, counts in attacks.responses.items()}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_main(Plan(**json.loads(Path(sys.argv[1]).read_text()))))))
