"""Checks for the event stream in NATS. The server imports this module only if UPLIFT_NATS_URL is set."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

from uplift_server.config import Config
from uplift_server.core.operations.findings import Finding
from uplift_server.core.operations.fleet import counted
from uplift_server.delivery.streams.link import NOT_FOUND, Link, NatsServer, StreamError, StreamUnavailable
from uplift_server.delivery.streams.stream import StreamSettings, check_streams, read_stream
from uplift_server.observe.snapshot import StreamReading
from uplift_server.store.errors import Unavailable
from uplift_server.store.postgres import inspection

FULL_WARN: Final = 0.5
"""The share of the stream's maximum size above which the checks warn."""
_NAME: Final = "event stream"


def stream_findings(config: Config) -> Iterator[Finding]:
    """Check the connection to every NATS server, and the replicas and the size of the stream."""
    yield from asyncio.run(_findings(StreamSettings.from_config(config), config.database_url))


async def _findings(settings: StreamSettings, database_url: str) -> Sequence[Finding]:
    found: list[Finding] = []
    try:
        database_id = await inspection.database_id(database_url)
    except Unavailable:
        database_id = None  # another check reports the database
    reading: StreamReading | StreamError | None = None
    for server in settings.servers:
        try:
            link = await Link.connect(server, settings.credentials_file)
        except StreamUnavailable as error:
            found.append(Finding("nats", "fail", f"cannot connect to {error}", error.how_to_fix))
            continue
        try:
            reading = await _read(link, server, database_id, found)
            if isinstance(reading, StreamError) and settings.replicas > 1 and not link.is_clustered:
                text = f"{server.address} does not belong to a cluster, so it cannot store {settings.replicas} replicas"
                found.append(Finding(_NAME, "fail", text, "connect the NATS servers, or set UPLIFT_NATS_REPLICAS=1"))
                reading = None
        finally:
            await link.close()
    if isinstance(reading, StreamReading):
        found += _of(reading, settings)
    elif isinstance(reading, StreamError):
        found.append(Finding(_NAME, "ok", "the first start creates the streams"))
    return found


async def _read(
    link: Link, server: NatsServer, database_id: str | None, found: list[Finding]
) -> StreamReading | StreamError | None:
    try:
        misfit = await check_streams(link, database_id)
        reading = await read_stream(link, 0)
    except StreamUnavailable as error:
        text = f"{server.address}: the event stream is not available ({error})"
        fix = error.how_to_fix or "enable JetStream, and check that more than half of the NATS servers are running"
        found.append(Finding("nats", "fail", text, fix))
        return None
    except StreamError as error:
        if error.code == NOT_FOUND:
            return error
        found.append(Finding("nats", "fail", f"{server.address}: {error}", "check the permissions of the NATS user"))
        return None
    found.append(Finding("nats", "ok", f"{server.address} responds"))
    if misfit is not None:
        found.append(Finding(_NAME, "fail", misfit.cause, misfit.how_to_fix))
    return reading


def _of(reading: StreamReading, settings: StreamSettings) -> Iterator[Finding]:
    waiting = f"the events of {counted(reading.messages, 'message')} are not in the database yet"
    text = waiting if reading.messages else "the database contains all events"
    current, replicas = reading.current_replicas, reading.replicas
    if current < replicas:
        yield Finding(
            "stream replicas",
            "warn",
            f"{current} of {replicas} replicas are up to date",
            "start the missing NATS server, or wait until its replica is up to date",
        )
    elif replicas != settings.replicas:
        edit = f"nats stream edit UPLIFT_EVENTS --replicas {settings.replicas}"
        fix = f"run `{edit}`, or set UPLIFT_NATS_REPLICAS={replicas}"
        yield Finding(
            "stream replicas",
            "warn",
            f"the number of replicas is {replicas}, but UPLIFT_NATS_REPLICAS is {settings.replicas}",
            fix,
        )
    else:
        yield Finding("stream replicas", "ok", f"{current} of {replicas} replicas are up to date")
    if reading.bytes_max > 0 and reading.bytes > FULL_WARN * reading.bytes_max:
        text += f", {reading.bytes / reading.bytes_max:.0%} of the stream's limit"
        yield Finding(_NAME, "warn", text, "check the database and the workers: a full stream rejects events")
    else:
        yield Finding(_NAME, "ok", text)
