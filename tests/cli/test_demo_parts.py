"""The parts of the demo: receivers that verify requests, predictable failures, links, and exact counts."""

import asyncio
import json
import socket
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from uplift_server.cli.demo import tally as tally_module
from uplift_server.cli.demo.receiver import (
    DOWN,
    DOWN_SECONDS,
    FIRST_FAILURES,
    RELAPSE_EVERY,
    SECOND_FAILURES,
    SHAKY,
    STEADY,
    UP_SECONDS,
    Arrival,
    DownRule,
    Receivers,
    ShakyRule,
)
from uplift_server.cli.demo.run import Demo, free_port
from uplift_server.cli.demo.tally import Summary, Tally
from uplift_server.cli.main import app
from uplift_webhooks.cli.kit.errors import CliError
from uplift_webhooks.testing import sign

SECRETS = {STEADY: "a-secret-of-the-steady-one", SHAKY: "a-secret-of-the-shaky-one", DOWN: "a-secret-of-the-third"}
BODY = json.dumps(
    {
        "id": "0197f0c2-0000-7000-8000-000000000001",
        "object": "event",
        "type": "athlete.created",
        "api_version": "01/01/2022",
        "created": 1_764_000_000_000,
        "data": {"object": {}},
    }
).encode()


class Setup:
    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.receivers = Receivers(SECRETS, self.arrivals.append)

    async def send(self, receiver: str, headers: dict[str, str], body: bytes = BODY, *, path: str | None = None) -> int:
        """Send a request on a new connection; return the status code."""
        response = await self.exchange(receiver, headers, body, path=path)
        return int(response.split(b" ")[1]) if response else 0

    async def exchange(self, receiver: str, headers: dict[str, str], body: bytes, *, path: str | None = None) -> bytes:
        """Send a request on a new connection; return the response."""
        url = self.receivers.url(receiver)
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.split(":")[2].split("/")[0]))
        lines = [f"POST /{path or receiver} HTTP/1.1", f"content-length: {len(body)}", "connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        response = await reader.read()
        writer.close()
        return response


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    found = Setup()
    await found.receivers.start()
    yield found
    await found.receivers.stop()


def signed(receiver: str, attempt: int = 1, **headers: str) -> dict[str, str]:
    return {**sign(BODY, SECRETS[receiver]), "x-uplift-attempt": str(attempt), **headers}


async def test_a_request_is_verified_by_both_signatures(setup: Setup) -> None:
    assert await setup.send(STEADY, signed(STEADY)) == 204
    [arrival] = setup.arrivals
    assert (arrival.receiver, arrival.type, arrival.attempt, arrival.problem) == (STEADY, "athlete.created", 1, None)
    assert arrival.event == "0197f0c2-0000-7000-8000-000000000001"


@pytest.mark.parametrize("name", ["webhook-signature", "x-uplift-signature-256", "webhook-timestamp"])
async def test_either_signature_alone_is_not_enough(setup: Setup, name: str) -> None:
    headers = signed(STEADY)
    headers[name] = "sha256=00" if name.startswith("x-") else "v1,AAAA" if name.endswith("signature") else "1"
    assert await setup.send(STEADY, headers) == 400
    del headers[name]
    assert await setup.send(STEADY, headers) == 400
    assert all(arrival.problem for arrival in setup.arrivals)
    assert len(setup.arrivals) == 2


async def test_the_secret_of_another_endpoint_does_not_verify(setup: Setup) -> None:
    assert await setup.send(SHAKY, signed(STEADY)) == 400


async def test_a_request_without_an_event_changes_nothing(setup: Setup) -> None:
    assert await setup.send(STEADY, signed(STEADY), path="elsewhere") == 404
    assert await setup.send(STEADY, {"content-length": "-1"}) == 0
    assert await setup.send(STEADY, {"content-length": "x"}) == 0
    assert setup.arrivals == []


async def test_the_shaky_receiver_accepts_a_later_attempt(setup: Setup) -> None:
    statuses = [await setup.send(SHAKY, signed(SHAKY, attempt)) for attempt in (1, 2, 3)]
    assert statuses == [500, 500, 204]
    assert [arrival.problem for arrival in setup.arrivals] == [None] * 3


def test_the_shaky_rule_fails_few_events_and_each_at_most_twice() -> None:
    rule = ShakyRule()
    firsts = [rule.status(f"e{number}", 1) for number in range(1, 2 * RELAPSE_EVERY + 1)]
    failed = [number for number, status in enumerate(firsts, 1) if status != 204]
    assert failed == [*range(1, FIRST_FAILURES + 1), RELAPSE_EVERY, 2 * RELAPSE_EVERY]
    assert {status for status in firsts if status != 204} == {500, 302}
    seconds = [rule.status(f"e{number}", 2) for number in failed]
    assert seconds == [500] * SECOND_FAILURES + [204] * (len(failed) - SECOND_FAILURES)
    assert {rule.status(f"e{number}", 3) for number in failed} == {204}


async def test_the_down_receiver_fails_all_events_but_accepts_its_registration(setup: Setup) -> None:
    assert [await setup.send(DOWN, signed(DOWN, attempt)) for attempt in (1, 5)] == [503, 503]
    registration = BODY.replace(b"athlete.created", b"webhook.created")
    assert await setup.send(DOWN, sign(registration, SECRETS[DOWN]), registration) == 204


def test_an_outage_is_long_enough_to_look_at_and_ends() -> None:
    times = iter([100.0, 100.0, 99.0 + DOWN_SECONDS, 101.0 + DOWN_SECONDS, 101.0 + DOWN_SECONDS + UP_SECONDS])
    rule = DownRule(lambda: next(times))
    assert [rule.status() for _ in range(4)] == [503, 503, 204, 503]
    assert DOWN_SECONDS >= 300


async def test_a_link_redirects_to_a_new_target_each_time(setup: Setup) -> None:
    targets = iter(["http://127.0.0.1:1/enter/a", "http://127.0.0.1:1/enter/b"])

    async def target() -> str:
        try:
            return next(targets)
        except StopIteration:
            raise CliError("the server is stopped", "start it") from None

    link = setup.receivers.add_link("owner", target)
    path = link.split("/", 3)[3]
    for expected in (b"a", b"b"):
        response = await setup.exchange(STEADY, {}, b"", path=path)
        assert response.startswith(b"HTTP/1.1 303 ")
        assert b"location: http://127.0.0.1:1/enter/" + expected + b"\r\n" in response
    assert await setup.send(STEADY, {}, b"", path=path) == 503
    assert await setup.send(STEADY, {}, b"", path="owner") == 404
    setup.receivers.remove_links()
    assert await setup.send(STEADY, {}, b"", path=path) == 404
    assert setup.arrivals == []


ARRIVAL = Arrival(STEADY, 10.0, "e1", "t", 1, 204, None)


def test_an_event_counts_when_both_receivers_accept_it() -> None:
    tally = Tally()
    tally.handed_over("e1", 10.0)
    tally.arrived(replace(ARRIVAL, at=10.004))
    assert (tally.sent, tally.outstanding()) == (1, 1)
    assert tally.latency_ms(replace(ARRIVAL, at=10.5)) == 500.0
    assert not tally.summary(unfinished=0, seconds=1).complete
    tally.arrived(replace(ARRIVAL, receiver=SHAKY, status=500))
    assert tally.outstanding() == 1
    tally.arrived(replace(ARRIVAL, receiver=SHAKY, attempt=2, at=11.0))
    assert tally.outstanding() == 0
    summary = tally.summary(unfinished=0, seconds=1.234)
    assert summary.complete
    assert (summary.failed_attempts, summary.retried_events, summary.duplicates) == (1, 1, 0)
    assert (summary.p50_ms, summary.p99_ms, summary.seconds) == (4.0, 4.0, 1.23)
    assert summary.as_json()["complete"] is True


def test_the_down_receiver_does_not_count() -> None:
    tally = Tally()
    tally.handed_over("e1", 10.0)
    for receiver, status in ((DOWN, 503), (STEADY, 204), (DOWN, 204), (SHAKY, 204), (DOWN, 204)):
        tally.arrived(replace(ARRIVAL, receiver=receiver, status=status))
    summary = tally.summary(unfinished=0, seconds=1)
    assert summary.complete
    assert (summary.failed_attempts, summary.retried_events, summary.duplicates) == (0, 0, 0)


def test_unverified_or_unsettled_events_make_a_run_incomplete() -> None:
    tally = Tally()
    tally.handed_over("e1", 10.0)
    for receiver in (STEADY, SHAKY):
        tally.arrived(replace(ARRIVAL, receiver=receiver))
    assert tally.summary(unfinished=0, seconds=1).complete
    assert not tally.summary(unfinished=1, seconds=1).complete
    assert tally.summary(unfinished=0, seconds=1, planned=1).complete
    assert not tally.summary(unfinished=0, seconds=1, planned=2).complete
    tally.arrived(replace(ARRIVAL, event="e2", problem="no signature fits", status=400))
    assert not tally.summary(unfinished=0, seconds=1).complete


def test_events_of_an_earlier_run_are_not_counted() -> None:
    tally = Tally()
    tally.handed_over("e1", 10.0)
    for event in ("e1", "e1", "old"):
        tally.arrived(replace(ARRIVAL, event=event))
    summary = tally.summary(unfinished=0, seconds=1)
    assert (summary.sent, summary.steady_verified, summary.shaky_verified, summary.duplicates) == (1, 1, 0, 1)
    assert tally.latency_ms(replace(ARRIVAL, event="old")) is None


def test_an_endless_run_uses_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally_module, "REMEMBERED_MAX", 10)
    tally = Tally()

    def sizes() -> list[int]:
        return [len(each) for each in vars(tally).values() if hasattr(each, "__len__") and not isinstance(each, deque)]

    for number in range(100):
        tally.handed_over(f"e{number}", 0.0)
        tally.arrived(replace(ARRIVAL, event=f"e{number}", receiver=SHAKY, status=500))
        for receiver in (STEADY, SHAKY, SHAKY):
            tally.arrived(replace(ARRIVAL, event=f"e{number}", receiver=receiver))
        tally.arrived(replace(ARRIVAL, event=f"stranger{number}"))
    assert max(sizes()) <= 22
    assert (tally.sent, tally.outstanding(), tally.retried_events, tally.duplicates) == (100, 0, 100, 100)
    assert tally.latency_ms(replace(ARRIVAL, event="e99")) is not None
    assert tally.latency_ms(replace(ARRIVAL, event="e1")) is None


def test_percentiles_use_the_nearest_rank() -> None:
    tally = Tally()
    for number in range(1, 101):
        tally.handed_over(f"e{number}", 0.0)
        tally.arrived(replace(ARRIVAL, event=f"e{number}", at=number / 1000))
    summary = tally.summary(unfinished=0, seconds=1)
    assert (summary.p50_ms, summary.p99_ms) == (50.0, 99.0)
    assert Tally().summary(unfinished=0, seconds=0).p50_ms is None


@pytest.mark.parametrize(("arguments", "slowest", "fastest"), [([], 1, 5), (["--events", "9"], 20, 100)])
def test_the_default_rate_can_be_followed(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], slowest: float, fastest: float
) -> None:
    rates = []

    async def no_run(demo: Demo) -> Summary:
        rates.append(demo.plan.rate_per_second)
        return Tally().summary(unfinished=0, seconds=0)

    monkeypatch.setattr(Demo, "run", no_run)
    assert CliRunner().invoke(app, ["demo", *arguments]).exit_code == 0
    assert slowest <= rates[0] <= fastest


def test_an_incomplete_run_exits_with_1_and_lists_missing_events(monkeypatch: pytest.MonkeyPatch) -> None:
    async def incomplete_run(_: Demo) -> Summary:
        tally = Tally()
        tally.handed_over("e1", 0.0)
        return tally.summary(unfinished=2, seconds=30)

    monkeypatch.setattr(Demo, "run", incomplete_run)
    result = CliRunner().invoke(app, ["demo", "--events", "1"])
    assert result.exit_code == 1
    assert "Delivered and verified: 0 of 1 events at the steady receiver" in result.stdout
    assert "Unfinished deliveries: 2" in result.stdout
    assert result.stderr.startswith("Error: some events did not arrive or were not verified\nHow to fix: ")


def test_a_port_in_use_is_replaced_by_another() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) == 0
    assert free_port(port) == port
