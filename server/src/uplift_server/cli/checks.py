"""The read-only checks of `uplift-server doctor`."""

import asyncio
import os
import socket
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Final

from uplift_server.cli.listening import cannot_listen
from uplift_server.cli.reach import check_ready, local_url, responds, server_runs
from uplift_server.cli.session import Session
from uplift_server.config import SETTINGS, Config, ConfigError, check_database, secret_key
from uplift_server.core.operations.example_values import example_in, is_guessable_key, is_placeholder
from uplift_server.core.operations.findings import Finding
from uplift_server.observe.trace_records import REMEDY_WITHOUT_PACKAGES
from uplift_server.service.diagnostics import (
    backup_findings,
    clock_finding,
    disk_finding,
    dns_finding,
    egress_findings,
    mail_findings,
    nats_findings,
    nearest_existing,
    single_sign_on_findings,
    stored_findings,
)
from uplift_server.store import inspection, schema_version
from uplift_server.store.encryption import Cipher, WrongSecretKey, parse_key
from uplift_server.store.errors import Unavailable
from uplift_server.store.inspection import EncryptedValue
from uplift_server.store.sqlite.connection import FileLock
from uplift_webhooks.cli.kit.errors import CliError

INTEGRITY_SECONDS: Final = 10.0
_HOW_TO_GENERATE: Final = "generate your own: head -c 24 /dev/urandom | base64 | tr +/ -_"
_GENERATED: Final = frozenset({"UPLIFT_OPERATOR_KEY", "UPLIFT_METRICS_TOKEN", "UPLIFT_SECRET_KEY"})
"""The secrets that operators generate. Other systems, such as the mail server, issue the other secrets."""
_HOW_TO_REPLACE_KEY: Final = (
    "generate your own: head -c 32 /dev/urandom | base64; if the database has secrets, use"
    " `uplift-server secret-key rotate`"
)
READY_SECONDS: Final = 6.0
"""Timeout of the readiness check, in seconds.

It is longer than the server's time limit for a response, which is 5 s.
"""


def examine(session: Session) -> Iterator[Finding]:
    """Run all checks of `uplift-server doctor` in order, because later checks depend on earlier results."""
    yield Finding("python", "ok", f"{'.'.join(map(str, sys.version_info[:3]))} in {sys.prefix}")
    yield clock_finding()
    try:
        config = session.config()
    except ConfigError as error:
        for problem in error.problems:
            yield Finding("settings", "fail", f"{problem.name} {problem.reason}", problem.remedy)
        return
    yield Finding(
        "settings",
        "ok",
        f"{len(config.given)} set; the others use their defaults; a running server may use different settings",
    )
    yield from _example_values(config)
    if config.on_postgresql:
        yield _server(config) if server_runs(config) else _port(config)
        yield from _postgresql(config)
        yield from nats_findings(config)
    elif server_runs(config):
        yield disk_finding(config)
        yield from backup_findings(config)
        yield _server(config)
        yield from stored_findings(config)
    else:
        yield disk_finding(config)
        yield from backup_findings(config)
        yield _port(config)
        yield from _sqlite(config)
    yield from egress_findings(config)
    yield dns_finding()
    yield from mail_findings(config)
    yield from single_sign_on_findings(config)
    yield from _traces(config)


def _traces(config: Config) -> Iterator[Finding]:
    if config.traces_by is None:
        return
    try:
        import_module("uplift_server.observe.tracing")
    except ImportError as error:
        text = f"{config.traces_by} needs packages that are not installed ({error})"
        yield Finding("traces", "fail", text, REMEDY_WITHOUT_PACKAGES)
    else:
        yield Finding("traces", "ok", f"enabled by {config.traces_by}; the connection to the collector was not tested")


def _example_values(config: Config) -> Iterator[Finding]:
    """Find settings with placeholders or examples from the documentation, and an encryption key that is not random."""
    secret = {each.name for each in SETTINGS if each.can_be_file}
    for name, (source, text) in config.given.items():
        where = f"{name} ({source})"
        if name in secret and is_placeholder(text):
            remedy = _HOW_TO_GENERATE if name in _GENERATED else "replace the placeholder with the real value"
            yield Finding("example value", "fail", f"{where} contains a placeholder instead of a secret", remedy)
        elif name == "UPLIFT_SECRET_KEY" and is_guessable_key(text):
            yield Finding(
                "example value", "warn", f"{where} is not a random key, so others can guess it", _HOW_TO_REPLACE_KEY
            )
        elif example := example_in(text):
            remedy = "replace the example with your own value"
            yield Finding("example value", "warn", f"{where} contains {example}, which is only an example", remedy)


def _server(config: Config) -> Finding:
    """Check that the server at the configured address is ready and uses the configured database."""
    url = local_url(config)
    try:
        found = check_ready(config, READY_SECONDS)
        expected = _database_id(config)
    except CliError as error:
        return Finding(
            "server", "fail", f"the server is running at {url}, but is not ready: {error.cause}", error.remedy
        )
    except Unavailable:
        expected = None
    if found and expected and found != expected:
        return _different_database(config)
    more = "" if config.on_postgresql else "; stop it to check its database file"
    return Finding("server", "ok", f"running and ready at {url}{more}")


def _different_database(config: Config) -> Finding:
    text = f"the server at {local_url(config)} uses a different database than this configuration"
    return Finding("server", "fail", text, "correct UPLIFT_HOST and UPLIFT_PORT, or UPLIFT_DATABASE_URL")


def _database_id(config: Config) -> str | None:
    if not config.on_postgresql:
        return inspection.database_id(config.database_path)
    from uplift_server.store.postgres.inspection import database_id  # noqa: PLC0415 - PostgreSQL only

    return asyncio.run(database_id(config.database_url))


def _port(config: Config) -> Finding:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
        except OSError as error:
            # No server has locked the configured file, so a server that responds here uses another database.
            if not config.on_postgresql and responds(config):
                return _different_database(config)
            problem = cannot_listen(config, error)
            return Finding("port", "fail", f"{problem.name} {problem.reason}", problem.remedy)
    return Finding("port", "ok", f"{config.host} port {config.port} is free")


def _sqlite(config: Config) -> Iterator[Finding]:
    """Check the SQLite file, its schema, integrity and key. Call this only while no server is running."""
    path = config.database_path
    directory = nearest_existing(path.absolute().parent)
    writable = os.access(directory, os.W_OK | os.X_OK) and (not path.exists() or os.access(path, os.R_OK | os.W_OK))
    if not writable:
        remedy = "give the server's user write access, or change UPLIFT_DATABASE_URL"
        yield Finding("database", "fail", f"{path} is not writable", remedy)
        return
    try:
        check_database(config)
    except ConfigError as error:
        [problem] = error.problems
        yield Finding("database", "fail", f"{problem.name} {problem.reason}", problem.remedy)
        return
    if not path.exists():
        yield Finding("database", "ok", f"{path} does not exist yet; the first start creates it")
        return
    lock = FileLock(path)
    try:
        lock.acquire()
    except Unavailable as error:
        cause, _, remedy = str(error).partition("; ")
        yield Finding("database", "fail", cause, remedy or f"give the server's user access to {lock.path}")
        return
    try:
        yield from _contents(config, path)
    except (Unavailable, schema_version.UnknownSchema) as error:
        cause, _, remedy = str(error).partition("; ")
        yield Finding("database", "fail", cause, remedy or "restore the database from a backup")
    finally:
        lock.release()


def _postgresql(config: Config) -> Iterator[Finding]:
    """Check the PostgreSQL database, its settings, schema and key."""
    # Import only on PostgreSQL, because the driver is slow to load.
    from uplift_server.service.postgres_diagnostics import database_findings  # noqa: PLC0415
    from uplift_server.store.postgres.inspection import accepts_unbound, encrypted_values  # noqa: PLC0415
    from uplift_server.store.postgres.schema_version import current  # noqa: PLC0415

    failed = False
    for finding in database_findings(config.database_url, config.shown_database):
        yield finding
        failed = failed or finding.result == "fail"
    if failed:
        return
    try:
        # A database without tables has no encrypted values or held deliveries.
        if asyncio.run(current(config.database_url)) is not None:
            remedy = "set UPLIFT_SECRET_KEY to the same key as on the other servers"
            unbound = asyncio.run(accepts_unbound(config.database_url))
            yield _opening(config, asyncio.run(encrypted_values(config.database_url)), remedy, unbound=unbound)
            yield from stored_findings(config)
    except Unavailable as error:
        remedy = "check pg_stat_activity for locks and long queries"
        yield Finding("database", "fail", str(error), remedy)


def _schema(revision: str | None) -> Finding:
    if revision is None:
        return Finding("schema", "ok", "none yet; the first start creates it")
    if revision == schema_version.HEAD:
        return Finding("schema", "ok", f"{revision}, the schema of this version")
    if revision > schema_version.HEAD:
        text = f"{revision} is newer than the schema of this version ({schema_version.HEAD})"
        return Finding("schema", "fail", text, schema_version.REMEDY_NEWER)
    text = f"{revision} is older than the schema of this version ({schema_version.HEAD})"
    return Finding("schema", "warn", text, "to upgrade the schema, run `uplift-server migrate` or start the server")


def _contents(config: Config, path: Path) -> Iterator[Finding]:
    damages = inspection.find_damage(path, seconds=INTEGRITY_SECONDS)
    if damages:
        yield Finding("database", "fail", f"{path} is damaged: {damages[0]}", "restore the database from a backup")
        return
    if damages is None:
        text = f"{path} is too large to check within {INTEGRITY_SECONDS:.0f} s"
        yield Finding("database", "warn", text, f"run: sqlite3 {path} 'PRAGMA quick_check'")
    else:
        yield Finding("database", "ok", f"{path} passed the integrity check")
    revision = schema_version.current(path)
    yield _schema(revision)
    if revision is None or revision > schema_version.HEAD:
        return
    if revision == schema_version.HEAD or _lacks_key(config):
        yield _key(config, path)
    else:
        text = "not checked, because this version cannot read the secrets in an older schema"
        yield Finding("secret key", "warn", text, "run: uplift-server migrate && uplift-server doctor")
    if revision == schema_version.HEAD:
        yield from stored_findings(config)


def _lacks_key(config: Config) -> bool:
    return config.secret_key is None and not config.secret_key_path.exists()


def _key(config: Config, path: Path) -> Finding:
    remedy = f"restore the database's key to UPLIFT_SECRET_KEY or {config.secret_key_path}"
    if _lacks_key(config):
        return Finding("secret key", "fail", "the database exists, but its key is missing", remedy)
    unbound = inspection.accepts_unbound(path)
    found = _opening(config, inspection.encrypted_values(path), remedy, unbound=unbound)
    mode = config.secret_key_path.stat().st_mode & 0o077 if config.secret_key is None else 0
    if found.result == "ok" and mode:
        text = f"other users can read {config.secret_key_path}"
        return Finding("secret key", "warn", text, f"run: chmod 600 {config.secret_key_path}")
    return found


def _opening(config: Config, values: Iterable[EncryptedValue], remedy: str, *, unbound: bool) -> Finding:
    """Check that the encryption key decrypts all values.

    `remedy` is the instruction to show if the key is wrong. If `unbound` is true, the check accepts values that an
    earlier release encrypted without binding them to their column.
    """
    try:
        cipher = Cipher(parse_key(secret_key(config)), accepts_unbound=unbound)
    except ConfigError as error:
        [problem] = error.problems
        return Finding("secret key", "fail", f"{problem.name} {problem.reason}", problem.remedy)
    opened = Counter(_opens(cipher, each) for each in values)
    if opened[False]:
        text = f"cannot decrypt {opened[False]} of {opened.total()} encrypted secrets and headers"
        return Finding("secret key", "fail", text, remedy)
    text = f"decrypts all {opened.total()} encrypted secrets and headers" if opened else "no encrypted values yet"
    return Finding("secret key", "ok", text)


def _opens(cipher: Cipher, found: EncryptedValue) -> bool:
    try:
        cipher.decrypt(found.value, found.owner_id, found.column)
    except WrongSecretKey:
        return False
    return True
