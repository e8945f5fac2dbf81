"""The checks of `uplift-server doctor`, each of which changes nothing."""

import os
import shutil
import socket
import ssl
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from uplift_server.cli.client import ApiClient
from uplift_server.cli.doctor import Finding
from uplift_server.cli.errors import CliError
from uplift_server.cli.listening import cannot_listen
from uplift_server.cli.mail import mail_findings
from uplift_server.cli.reach import local_url, server_runs
from uplift_server.cli.session import Session
from uplift_server.config import Config, ConfigError, secret_key
from uplift_server.core.instants import instant_text
from uplift_server.core.source_addresses import SourceAddress, current
from uplift_server.delivery.sender.proxy import Proxy
from uplift_server.store import inspection, schema_version
from uplift_server.store.errors import Unavailable
from uplift_server.store.sealing import Sealer, WrongSecretKey, parse_key
from uplift_server.store.sqlite.connection import FileLock

DISK_BYTES_WARN: Final = 2 * 1024**3
DISK_BYTES_FAIL: Final = 100 * 1024**2
CLOCK_EARLIEST_S: Final = 1_735_689_600  # 2025: before this program was written
RESOLVED_NAME: Final = "example.com"
RESOLVE_SECONDS_WARN: Final = 2.0
INTEGRITY_SECONDS: Final = 10.0
HELD_COUNTED_MAX: Final = 1_000_000
PROXY_SECONDS: Final = 3.0


def examine(session: Session) -> Iterator[Finding]:
    """Every check, in an order in which the later ones may rely on the earlier."""
    yield Finding("python", "ok", f"{'.'.join(map(str, sys.version_info[:3]))} in {sys.prefix}")
    yield _clock()
    try:
        config = session.config()
    except ConfigError as error:
        for problem in error.problems:
            yield Finding("settings", "fail", f"{problem.name} {problem.reason}", problem.remedy)
        return
    yield Finding(
        "settings", "ok", f"{len(config.given)} given, the rest by default, as found here; a running server has its own"
    )
    yield _disk(config)
    if server_runs(config):
        yield _answers(config)
        yield from _held(config)
    else:
        yield _port(config)
        yield from _database(config)
    yield from _egress(config)
    yield _names()
    yield from mail_findings(config)


def _clock() -> Finding:
    if time.time() < CLOCK_EARLIEST_S:
        return Finding(
            "clock", "fail", "this machine's clock is years behind",
            "set it, best by NTP: receivers refuse signatures that are more than five minutes off",
        )  # fmt: skip
    return Finding("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))


def _nearest_existing(path: Path) -> Path:
    return next((each for each in (path, *path.absolute().parents) if each.exists()), Path("/"))


def _disk(config: Config) -> Finding:
    free = shutil.disk_usage(_nearest_existing(config.database_path.absolute().parent)).free
    text = f"{free / 1024**3:.1f} GiB free beside the database"
    remedy = "make room, or shorten UPLIFT_RETENTION; on a full disk the server refuses events"
    if free < DISK_BYTES_FAIL:
        return Finding("disk", "fail", text, remedy)
    return Finding("disk", "warn" if free < DISK_BYTES_WARN else "ok", text, remedy if free < DISK_BYTES_WARN else "")


def _answers(config: Config) -> Finding:
    url = local_url(config)
    try:
        with closing(ApiClient(url, None, timeout_seconds=6)) as client:
            client.check_ready()
    except CliError as error:
        return Finding("server", "fail", f"it has the database, but is not ready: {error.cause}", error.remedy)
    return Finding("server", "ok", f"running and ready on {url}; its database is looked at when it is stopped")


def _port(config: Config) -> Finding:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
        except OSError as error:
            problem = cannot_listen(config, error)
            return Finding("port", "fail", f"{problem.name} {problem.reason}", problem.remedy)
    return Finding("port", "ok", f"{config.host} port {config.port} is free")


def _database(config: Config) -> Iterator[Finding]:
    """The file, its schema, its integrity and its key, while no server runs."""
    path = config.database_path
    directory = _nearest_existing(path.absolute().parent)
    writable = os.access(directory, os.W_OK | os.X_OK) and (not path.exists() or os.access(path, os.R_OK | os.W_OK))
    if not writable:
        remedy = "let the server's user write there, or set UPLIFT_DATABASE_URL"
        yield Finding("database", "fail", f"{path} cannot be written", remedy)
        return
    if not path.exists():
        yield Finding("database", "ok", f"{path} is made by the first start")
        return
    lock = FileLock(path)
    try:
        lock.acquire()
        yield from _contents(config, path)
    except (Unavailable, schema_version.UnknownSchema) as error:
        cause, _, remedy = str(error).partition("; ")
        yield Finding("database", "fail", cause, remedy or "restore it from a copy")
    finally:
        lock.release()


def _contents(config: Config, path: Path) -> Iterator[Finding]:
    damages = inspection.damages(path, seconds=INTEGRITY_SECONDS)
    if damages:
        yield Finding("database", "fail", f"{path} is damaged: {damages[0]}", "stop using it; restore it from a copy")
        return
    if damages is None:
        text = f"{path} is too large to check within {INTEGRITY_SECONDS:.0f} s"
        yield Finding("database", "warn", text, "check it with: sqlite3 FILE 'PRAGMA quick_check'")
    else:
        yield Finding("database", "ok", f"{path} is whole")
    revision = schema_version.current(path)
    if revision is None:
        yield Finding("schema", "ok", "none yet; it is made by the first start")
        return
    if revision == schema_version.HEAD:
        yield Finding("schema", "ok", f"{revision}, this version's")
    else:
        yield Finding("schema", "warn", f"{revision}, where this version has {schema_version.HEAD}",
                      "run `uplift-server migrate`, or start the server, which does the same")  # fmt: skip
        return
    yield _key(config, path)
    yield from _held(config)


def _held(config: Config) -> Iterator[Finding]:
    """What endpoints hold, which no retention removes."""
    try:
        found = inspection.held(config.database_path, limit=HELD_COUNTED_MAX)
    except Unavailable as error:
        yield Finding("held", "warn", f"what endpoints hold cannot be read: {error}", "run this again in a moment")
        return
    if not found.count or found.oldest_at is None:
        yield Finding("held", "ok", "no deliveries are held")
        return
    many = f"{'at least ' if found.count == HELD_COUNTED_MAX else ''}{found.count:,}"
    text = (
        f"{many} deliver{'y is' if found.count == 1 else 'ies are'} held, for {found.endpoints:,}"
        f" endpoint{'' if found.endpoints == 1 else 's'}, the oldest since {instant_text(found.oldest_at)}"
    )
    age_ms = time.time_ns() // 1_000_000 - found.oldest_at
    if config.retention_ms and age_ms > config.retention_ms:
        remedy = "enable these endpoints, with --held send or drop, or delete them; see `uplift-server endpoints`"
        yield Finding("held", "warn", f"{text}: longer than UPLIFT_RETENTION, which never removes them", remedy)
    else:
        yield Finding("held", "ok", text)


def _key(config: Config, path: Path) -> Finding:
    remedy = f"put the key it was started with back, into UPLIFT_SECRET_KEY or {config.secret_key_path}"
    if config.secret_key is None and not config.secret_key_path.exists():
        return Finding("secret key", "fail", "the database exists and its key is missing", remedy)
    try:
        sealer = Sealer(parse_key(secret_key(config)))
    except ConfigError as error:
        [problem] = error.problems
        return Finding("secret key", "fail", f"{problem.name} {problem.reason}", problem.remedy)
    opened = Counter(_opens(sealer, sealed, owner) for owner, sealed in inspection.sealed_values(path))
    if opened[False]:
        text = f"it does not open {opened[False]} of {opened.total()} sealed secrets and headers"
        return Finding("secret key", "fail", text, remedy)
    mode = config.secret_key_path.stat().st_mode & 0o077 if config.secret_key is None else 0
    if mode:
        text = f"others may read {config.secret_key_path}"
        return Finding("secret key", "warn", text, f"run: chmod 600 {config.secret_key_path}")
    text = f"opens all {opened.total()} sealed secrets and headers" if opened else "nothing is sealed with it yet"
    return Finding("secret key", "ok", text)


def _opens(sealer: Sealer, sealed: bytes, owner: bytes) -> bool:
    try:
        sealer.open(sealed, owner)
    except WrongSecretKey:
        return False
    return True


def _egress(config: Config) -> Iterator[Finding]:
    """Where requests leave from, and whom they trust."""
    for address in config.egress_address or ():
        with closing(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)) as probe:
            try:
                probe.bind((address, 0))
                yield Finding("egress", "ok", f"requests leave from {address}")
            except OSError as error:
                text = f"{address} is no address of this machine ({error.strerror})"
                yield Finding("egress", "fail", text, "add it to an interface, or correct UPLIFT_EGRESS_ADDRESS")
    published = current(map(SourceAddress.parse, config.source_ips), time.time_ns() // 1_000_000)
    unpublished = [address for address in config.egress_address or () if address not in published]
    if unpublished:
        text = f"requests leave from {' and '.join(unpublished)}, not among those published"
        if not any(ip_address(address).is_global for address in unpublished):
            text += "; what they are translated to on their way, nobody here can tell"
        yield Finding("source ips", "warn", text, "add it to UPLIFT_SOURCE_IPS, unless an address is translated later")
    if config.egress_proxy is not None:
        yield _proxy(config.egress_proxy)
    try:
        context = ssl.create_default_context(cafile=config.egress_ca_file)
    except (OSError, ssl.SSLError) as error:
        text = f"{config.egress_ca_file} has no certificates to trust ({error})"
        yield Finding("trust", "fail", text, "correct UPLIFT_EGRESS_CA_FILE")
        return
    count = context.cert_store_stats()["x509_ca"]
    if count or (config.egress_ca_file is None and ssl.get_default_verify_paths().capath):
        yield Finding("trust", "ok", f"{count} authorities" if count else "the system's directory of authorities")
    else:
        remedy = "install the system's CA certificates, or set UPLIFT_EGRESS_CA_FILE"
        yield Finding(
            "trust", "fail", "no certificate authority is trusted, so no https endpoint can be reached", remedy
        )


def _proxy(url: str) -> Finding:
    remedy = "start it, or correct UPLIFT_EGRESS_PROXY; without it nothing is delivered"
    try:
        proxy = Proxy.parse(url)
        shown = f"{proxy.host} port {proxy.port}"
        socket.create_connection((proxy.host, proxy.port), timeout=PROXY_SECONDS).close()
    except ValueError as error:
        return Finding("egress proxy", "fail", str(error), "correct UPLIFT_EGRESS_PROXY")
    except OSError as error:
        return Finding("egress proxy", "fail", f"{shown} cannot be reached ({error.strerror or error})", remedy)
    return Finding("egress proxy", "ok", f"{shown} takes connections")


def _names() -> Finding:
    began = time.monotonic()
    try:
        socket.getaddrinfo(RESOLVED_NAME, 443, type=socket.SOCK_STREAM)
    except OSError as error:
        remedy = "correct /etc/resolv.conf; without it only endpoints given as addresses are reached"
        return Finding("dns", "warn", f"{RESOLVED_NAME} does not resolve ({error.strerror})", remedy)
    took = time.monotonic() - began
    if took > RESOLVE_SECONDS_WARN:
        return Finding("dns", "warn", f"{RESOLVED_NAME} took {took:.1f} s", "use a nearer or a caching resolver")
    return Finding("dns", "ok", f"{RESOLVED_NAME} in {took * 1000:.0f} ms")
