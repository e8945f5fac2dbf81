"""Read-only checks of the machine, the database and outbound connections, with or without a running server.

A check can block while it waits for a DNS, proxy or mail server.
"""

import asyncio
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from uplift_server.config import Config
from uplift_server.core.http.source_addresses import SourceAddress, current
from uplift_server.core.operations.findings import Finding
from uplift_server.core.security.oidc import metadata_url
from uplift_server.core.timestamps import format_timestamp
from uplift_server.delivery.clock import SystemClock
from uplift_server.delivery.sending.http.proxy import Proxy
from uplift_server.delivery.sending.http.resolver import Resolver
from uplift_server.delivery.sending.http.settings import SenderSettings
from uplift_server.service.identity_provider import ProviderDown, identity_provider
from uplift_server.service.startup import OPERATIONS_ACCOUNT_FIX
from uplift_server.store import inspection
from uplift_server.store.errors import Rejected, Unavailable

DISK_BYTES_WARN: Final = 2 * 1024**3
DISK_BYTES_FAIL: Final = 100 * 1024**2
BACKUP_AGE_S_WARN: Final = 2 * 24 * 60 * 60
CLOCK_EARLIEST_S: Final = 1_735_689_600
"""The time 2025-01-01 00:00 UTC (Unix s). A clock that shows an earlier time is wrong."""
RESOLVED_NAME: Final = "example.com"
RESOLVE_SECONDS_WARN: Final = 2.0
HELD_COUNTED_MAX: Final = 1_000_000
PROXY_SECONDS: Final = 3.0


def environment_findings(config: Config) -> Iterator[Finding]:
    """Run all checks that are possible while a server is running."""
    yield clock_finding()
    if config.on_postgresql:
        from uplift_server.service.postgres_diagnostics import database_findings  # noqa: PLC0415 - not beside SQLite

        yield from database_findings(config.database_url, config.shown_database)
    else:
        yield disk_finding(config)
        yield from backup_findings(config)
    yield from stored_findings(config)
    yield from nats_findings(config)
    yield from egress_findings(config)
    yield dns_finding()
    yield from mail_findings(config)
    yield from single_sign_on_findings(config)


def clock_finding() -> Finding:
    """Check that the clock does not show a time before CLOCK_EARLIEST_S."""
    if time.time() < CLOCK_EARLIEST_S:
        return Finding(
            "clock", "fail", "the clock of this machine is years behind",
            "set the clock, preferably with NTP: receivers reject timestamps that are off by more than 5 minutes",
        )  # fmt: skip
    return Finding("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))


def nearest_existing(path: Path) -> Path:
    """Return the path if it exists. Otherwise, return its nearest existing parent directory."""
    return next((each for each in (path, *path.absolute().parents) if each.exists()), Path("/"))


def disk_finding(config: Config) -> Finding:
    """Check the free space on the disk that holds the SQLite database."""
    free = shutil.disk_usage(nearest_existing(config.database_path.absolute().parent)).free
    text = f"{free / 1024**3:.1f} GiB free on the database's disk"
    fix = "free disk space or shorten UPLIFT_RETENTION: with a full disk, the server rejects events"
    if free < DISK_BYTES_FAIL:
        return Finding("disk", "fail", text, fix)
    return Finding("disk", "warn" if free < DISK_BYTES_WARN else "ok", text, fix if free < DISK_BYTES_WARN else "")


def backup_findings(config: Config) -> Iterator[Finding]:
    """Check the age of the newest copy in the directory `backups` next to the SQLite database, if it exists."""
    directory = config.database_path.absolute().parent / "backups"
    try:
        files = {each.name: each.stat() for each in directory.iterdir()}
    except OSError:  # the directory does not exist or is not readable, or the backup just deleted an old copy
        return
    prefix = f"{config.database_path.name}."
    copies = [
        stat.st_mtime
        for name, stat in files.items()
        if name.startswith(prefix) and ".partial" not in name and stat.st_size
    ]
    newest = max(copies, default=0)
    text = f"the newest copy in {directory} is from {format_timestamp(int(newest * 1000))}"
    if time.time() - newest <= BACKUP_AGE_S_WARN:
        yield Finding("backup", "ok", text)
    else:
        fix = "check uplift-backup.timer and the log of uplift-backup, or move the directory if you do not use it"
        yield Finding("backup", "warn", text if copies else f"{directory} contains no copy of the database", fix)


def _held(config: Config) -> inspection.Held:
    if not config.on_postgresql:
        return inspection.held(config.database_path, limit=HELD_COUNTED_MAX)
    from uplift_server.store.postgres import inspection as of_postgresql  # noqa: PLC0415 - not beside SQLite

    return asyncio.run(of_postgresql.held(config.database_url, limit=HELD_COUNTED_MAX))


def nats_findings(config: Config) -> Iterator[Finding]:
    """Check the event stream, if one is configured."""
    if config.nats_url is not None:
        from uplift_server.service.stream_diagnostics import stream_findings  # noqa: PLC0415 - not without NATS

        yield from stream_findings(config)


def stored_findings(config: Config) -> Iterator[Finding]:
    """Check for held deliveries, and check the operations account."""
    yield from held_findings(config)
    yield from operations_findings(config)


def held_findings(config: Config) -> Iterator[Finding]:
    """Count the held deliveries. Warn if one is older than UPLIFT_RETENTION, because retention does not delete it."""
    try:
        found = _held(config)
    except Unavailable as error:
        yield Finding("held", "warn", f"cannot read the held deliveries: {error}", "run the checks again in a moment")
        return
    if not found.count or found.oldest_at is None:
        yield Finding("held", "ok", "no deliveries are held")
        return
    count_text = f"{'at least ' if found.count == HELD_COUNTED_MAX else ''}{found.count:,}"
    text = (
        f"{count_text} held deliver{'y' if found.count == 1 else 'ies'} of {found.endpoints:,}"
        f" endpoint{'' if found.endpoints == 1 else 's'}; the oldest event is from {format_timestamp(found.oldest_at)}"
    )
    age_ms = time.time_ns() // 1_000_000 - found.oldest_at
    if config.retention_ms and age_ms > config.retention_ms:
        fix = "enable these endpoints with --held send or drop, or delete them; `uplift-server endpoints` lists them"
        text += ", longer ago than UPLIFT_RETENTION; retention does not delete held deliveries"
        yield Finding("held", "warn", text, fix)
    else:
        yield Finding("held", "ok", text)


def operations_findings(config: Config) -> Iterator[Finding]:
    """Check that UPLIFT_OPERATIONS_ACCOUNT, if set, names an existing account."""
    account = config.operations_account
    if account is None:
        return
    try:
        exists = _has_account(config, account)
    except (Unavailable, Rejected) as error:
        text = f"cannot read the accounts: {error}"
        yield Finding("operations account", "warn", text, "run the checks again in a moment")
        return
    if exists:
        yield Finding("operations account", "ok", f"{account} receives the operational events of all accounts")
    else:
        text = f"UPLIFT_OPERATIONS_ACCOUNT is {account}, but no account has this ID or uid"
        yield Finding("operations account", "fail", text, OPERATIONS_ACCOUNT_FIX)


def _has_account(config: Config, account: str) -> bool:
    if not config.on_postgresql:
        return inspection.has_account(config.database_path, account)
    from uplift_server.store.postgres import inspection as of_postgresql  # noqa: PLC0415 - not beside SQLite

    return asyncio.run(of_postgresql.has_account(config.database_url, account))


def egress_findings(config: Config) -> Iterator[Finding]:
    """Check the egress IPs, the egress proxy, and the trusted certificate authorities."""
    for address in config.egress_address or ():
        with closing(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)) as probe:
            try:
                probe.bind((address, 0))
                yield Finding("egress", "ok", f"outbound connections use {address}")
            except OSError as error:
                text = f"{address} is not an address of this machine ({error.strerror})"
                yield Finding(
                    "egress", "fail", text, "add the address to an interface, or correct UPLIFT_EGRESS_ADDRESS"
                )
    published = current(map(SourceAddress.parse, config.source_ips), time.time_ns() // 1_000_000)
    unpublished = [address for address in config.egress_address or () if address not in published]
    if unpublished:
        text = f"outbound connections use {' and '.join(unpublished)}, which UPLIFT_SOURCE_IPS does not list"
        if not any(ip_address(address).is_global for address in unpublished):
            text += "; the server cannot detect address translation"
        yield Finding("source ips", "warn", text, "add each address to UPLIFT_SOURCE_IPS unless NAT translates it")
    if config.egress_proxy is not None:
        yield _proxy(config.egress_proxy)
    try:
        context = ssl.create_default_context(cafile=config.egress_ca_file)
    except (OSError, ssl.SSLError) as error:
        text = f"{config.egress_ca_file} contains no valid certificates ({error})"
        yield Finding("trust", "fail", text, "correct UPLIFT_EGRESS_CA_FILE")
        return
    count = context.cert_store_stats()["x509_ca"]
    if count or (config.egress_ca_file is None and ssl.get_default_verify_paths().capath):
        yield Finding(
            "trust",
            "ok",
            f"the server trusts {count} certificate authorities"
            if count
            else "the server trusts the certificates of the system",
        )
    else:
        fix = "install the system's CA certificates, or set UPLIFT_EGRESS_CA_FILE"
        yield Finding("trust", "fail", "no trusted certificate authorities: all deliveries over https fail", fix)


def _proxy(url: str) -> Finding:
    fix = "start the proxy, or correct UPLIFT_EGRESS_PROXY: without the proxy, every delivery fails"
    try:
        proxy = Proxy.parse(url)
        shown = f"{proxy.host} port {proxy.port}"
        socket.create_connection((proxy.host, proxy.port), timeout=PROXY_SECONDS).close()
    except ValueError as error:
        return Finding("egress proxy", "fail", str(error), "correct UPLIFT_EGRESS_PROXY")
    except OSError as error:
        return Finding("egress proxy", "fail", f"cannot connect to {shown} ({error.strerror or error})", fix)
    return Finding("egress proxy", "ok", f"{shown} accepts connections")


def dns_finding() -> Finding:
    """Check that host names resolve."""
    began = time.monotonic()
    try:
        socket.getaddrinfo(RESOLVED_NAME, 443, type=socket.SOCK_STREAM)
    except OSError as error:
        fix = "correct /etc/resolv.conf: without DNS, deliveries reach only IP addresses"
        return Finding("dns", "warn", f"{RESOLVED_NAME} does not resolve ({error.strerror})", fix)
    took = time.monotonic() - began
    if took > RESOLVE_SECONDS_WARN:
        return Finding(
            "dns",
            "warn",
            f"{RESOLVED_NAME} resolved in {took:.1f} s",
            "configure a closer name server, or one with a cache",
        )
    return Finding("dns", "ok", f"{RESOLVED_NAME} resolved in {took * 1000:.0f} ms")


def mail_findings(config: Config) -> Iterator[Finding]:
    """Check that the server can connect to the mail server and log in. The check sends no email."""
    if not config.sends_mail:
        yield Finding("mail", "ok", "email is not configured (UPLIFT_SMTP_URL)")
        if config.operator_email is not None:
            text = "UPLIFT_OPERATOR_EMAIL is set, but UPLIFT_SMTP_URL is not"
            yield Finding(
                "operator mail",
                "warn",
                text,
                "set UPLIFT_SMTP_URL and UPLIFT_MAIL_FROM, or remove UPLIFT_OPERATOR_EMAIL",
            )
        return
    yield asyncio.run(_mail_server(config))
    if config.operator_email is None:
        text = "operators do not receive emails about mass failures"
        yield Finding("operator mail", "warn", text, "set UPLIFT_OPERATOR_EMAIL")


def single_sign_on_findings(config: Config) -> Iterator[Finding]:
    """Check that the identity provider responds, uses the configured issuer, and publishes keys."""
    issuer = config.oidc_issuer
    if issuer is None:
        return
    yield asyncio.run(_identity_provider(config))
    if issuer.startswith("http:") and config.public_url.startswith("https:"):
        text = f"{issuer} does not use https, so others can read and change the tokens"
        yield Finding("single sign-on", "warn", text, "use an issuer with https")


async def _identity_provider(config: Config) -> Finding:
    resolver = Resolver(SenderSettings())
    provider = identity_provider(config, config.public_url, resolver, SystemClock(), "Uplift-Webhooks doctor")
    assert provider is not None, "an issuer is configured"
    await provider.start()
    try:
        count = await provider.check_keys()
    except ProviderDown as error:
        remedy = "correct UPLIFT_OIDC_ISSUER, or check the network and the identity provider"
        return Finding("single sign-on", "fail", str(error), remedy)
    finally:
        await provider.close()
        await resolver.close()
    if not count:
        text = f"{config.oidc_issuer} responds, but publishes no usable signing key, so single sign-on fails"
        remedy = (
            f"check the keys at the jwks_uri of {metadata_url(provider.client.issuer)}: the server needs an RSA key of"
            " at least 2048 bits, an EC key (P-256) or an Ed25519 key for signatures"
        )
        return Finding("single sign-on", "fail", text, remedy)
    text = f"{config.oidc_issuer} responds, with {count} usable key{'' if count == 1 else 's'}"
    return Finding("single sign-on", "ok", f"{text}; the redirect URI is {provider.client.redirect_uri}")


async def _mail_server(config: Config) -> Finding:
    from uplift_server.mail.failures import MailNotSent  # noqa: PLC0415
    from uplift_server.mail.smtp import SmtpServer  # noqa: PLC0415

    relay = SmtpServer.from_config(config)
    try:
        async with relay.connected() as connection:
            login = "logged in, " if connection.logged_in else ""
            encryption = "encrypted" if connection.encrypted else "not encrypted"
            return Finding("mail", "ok", f"{relay} responds ({login}{encryption})")
    except MailNotSent as failure:
        return Finding("mail", "fail", failure.cause, failure.remedy)
