"""The resolver: limited caching, shared lookups, and failures that affect only one name."""

import asyncio
import time

import pytest

from uplift_server.core.http.exchange import Failure
from uplift_server.delivery.sending.http import ResolutionFailed, Resolver, SenderSettings, Target
from uplift_server.delivery.sending.http.resolver import ADDRESSES_MAX

from .scripted import AAAA, A, Clock, Connect, Listen, NameServer, serve_ok


def resolver(names: NameServer, clock: Clock | None = None, **settings: int) -> Resolver:
    chosen = SenderSettings(**settings)  # type: ignore[arg-type]
    return Resolver(chosen, nameservers=[names.address], monotonic=clock or time.monotonic)


async def test_both_families_are_queried(names: NameServer) -> None:
    names.zone["both.example"] = ["127.0.0.5", "::1"]
    subject = resolver(names)
    assert set(await subject.resolve("both.example")) == {"127.0.0.5", "::1"}
    assert {kind for _, kind in names.queries} == {A, AAAA}
    await subject.close()


@pytest.mark.parametrize("name", ["localhost", "LocalHost.", "a.b.localhost"])
async def test_localhost_is_never_queried(names: NameServer, name: str) -> None:
    subject = resolver(names)
    assert await subject.resolve(name) == ("127.0.0.1", "::1")
    assert names.queries == []
    await subject.close()


async def test_case_and_a_trailing_dot_are_ignored(names: NameServer) -> None:
    names.zone["dot.example"] = ["127.0.0.5"]
    names.ttl = 10
    subject = resolver(names)
    for name in ("dot.example", "dot.example.", "Dot.Example"):
        assert await subject.resolve(name) == ("127.0.0.5",)
    assert len(names.queries) == 2
    await subject.close()


@pytest.mark.parametrize(("ttl", "cached_seconds"), [(0, 1), (10, 10), (86_400, 30)])
async def test_results_are_cached_for_their_ttl_within_limits(
    names: NameServer, clock: Clock, ttl: int, cached_seconds: int
) -> None:
    names.ttl = ttl
    names.zone["kept.example"] = ["127.0.0.5"]
    subject = resolver(names, clock)
    await subject.resolve("kept.example")
    names.zone["kept.example"] = ["127.0.0.6"]
    clock.now += cached_seconds - 0.001
    assert await subject.resolve("kept.example") == ("127.0.0.5",)
    clock.now += 0.001
    # c-ares has its own clock, which has not advanced. Only a new channel queries again.
    subject._channel = None
    assert await subject.resolve("kept.example") == ("127.0.0.6",)
    await subject.close()


async def test_c_ares_does_not_extend_the_cache_time(names: NameServer, clock: Clock) -> None:
    names.ttl = 86_400
    names.zone["long.example"] = ["127.0.0.5"]
    subject = resolver(names, clock)
    await subject.resolve("long.example")
    names.zone["long.example"] = ["127.0.0.6"]
    clock.now += 30
    assert await subject.resolve("long.example") == ("127.0.0.6",)
    await subject.close()


async def test_failures_are_cached_briefly(names: NameServer, clock: Clock) -> None:
    subject = resolver(names, clock, dns_negative_ttl_ms=2000)
    for _ in range(3):
        with pytest.raises(ResolutionFailed, match="does not exist"):
            await subject.resolve("new.example")
    queries = sum(name == "new.example" for name, _ in names.queries)
    assert queries == 2
    names.zone["new.example"] = ["127.0.0.5"]
    clock.now += 2
    subject._channel = None
    assert await subject.resolve("new.example") == ("127.0.0.5",)
    await subject.close()


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (3, "bad.example does not exist"),
        (2, "the name servers failed to resolve bad.example"),
        (5, "the name servers"),
        ([], "bad.example has no address"),
    ],
)
async def test_every_failure_has_an_error_text(
    names: NameServer, connect: Connect, response: list[str] | int, text: str
) -> None:
    names.zone["bad.example"] = response
    client = await connect(nameservers=[names.address])
    exchange = await client.post(Target("bad.example", 80, False))
    assert exchange.failure is Failure.DNS
    assert exchange.error is not None
    assert exchange.error.startswith(text)
    assert (exchange.remote_address, exchange.bytes_sent) == (None, False)
    assert isinstance(exchange.dns_ms, int)


async def test_a_silent_name_server_delays_only_its_lookups(
    names: NameServer, connect: Connect, listen: Listen
) -> None:
    receiver = await listen(serve_ok)
    names.zone.update({"good.example": ["127.0.0.1"], **{f"hang{number}.example": None for number in range(60)}})
    client = await connect(nameservers=[names.address], dns_timeout_ms=1000)
    hanging = [client.send(receiver.target(f"hang{number}.example")) for number in range(60)]
    await asyncio.sleep(0.02)
    good = await client.post(receiver.target("good.example"))
    assert good.failure is None
    assert not any(each.done() for each in hanging)
    exchanges = await asyncio.gather(*hanging)
    assert {exchange.failure for exchange in exchanges} == {Failure.DNS}
    assert {(exchange.error or "").split(" to ")[0] for exchange in exchanges} <= {"no name server responded"}
    assert all(exchange.duration_us < 4_000_000 for exchange in exchanges)


async def test_the_timeout_applies_during_the_lookup(names: NameServer, connect: Connect) -> None:
    names.zone["hang.example"] = None
    client = await connect(nameservers=[names.address], attempt_timeout_ms=50, dns_timeout_ms=300)
    exchange = await client.post(Target("hang.example", 80, False))
    assert exchange.failure is Failure.TIMEOUT
    assert exchange.error == "no complete response within 0.05 s: still resolving hang.example"


async def test_concurrent_lookups_share_one_query(names: NameServer) -> None:
    names.zone["shared.example"] = ["127.0.0.5"]
    subject = resolver(names)
    results = await asyncio.gather(*(subject.resolve("shared.example") for _ in range(50)))
    assert set(results) == {("127.0.0.5",)}
    assert len(names.queries) == 2
    await subject.close()


async def test_a_timeout_of_one_caller_does_not_cancel_the_lookup(names: NameServer) -> None:
    names.zone["slow.example"] = None
    subject = resolver(names, dns_timeout_ms=2000)
    loop = asyncio.get_running_loop()
    first = loop.create_task(subject.resolve("slow.example"))
    second = loop.create_task(subject.resolve("slow.example"))
    await asyncio.sleep(0.02)
    first.cancel()
    names.zone["slow.example"] = ["127.0.0.5"]
    assert await second == ("127.0.0.5",)
    assert first.cancelled()
    await subject.close()


async def test_the_cache_size_is_limited(names: NameServer) -> None:
    names.zone.update({f"name{number}.example": ["127.0.0.5"] for number in range(10)})
    subject = resolver(names, dns_entries_max=4)
    for number in range(10):
        await subject.resolve(f"name{number}.example")
    assert len(subject._entries) == 4
    await subject.close()


async def test_close_ends_lookups(names: NameServer) -> None:
    names.zone["hang.example"] = None
    subject = resolver(names)
    waiting = asyncio.get_running_loop().create_task(subject.resolve("hang.example"))
    await asyncio.sleep(0.01)
    await subject.close()
    with pytest.raises(ResolutionFailed, match="closed"):
        await waiting
    with pytest.raises(ResolutionFailed, match="closed"):
        await subject.resolve("hang.example")


@pytest.mark.parametrize("name", ["", "a..b", "x" * 64 + ".example", "a." * 130 + "b", "bad name", "ü.example"])
async def test_invalid_names_fail(names: NameServer, name: str) -> None:
    subject = resolver(names)
    with pytest.raises(ResolutionFailed):
        await subject.resolve(name)
    await subject.close()


async def test_the_number_of_addresses_is_limited(names: NameServer) -> None:
    every = [f"127.0.0.{number}" for number in range(1, 201)]
    names.zone["many.example"] = every
    subject = resolver(names)
    found = await subject.resolve("many.example")
    assert len(found) == ADDRESSES_MAX
    assert set(found) <= set(every)
    await subject.close()
