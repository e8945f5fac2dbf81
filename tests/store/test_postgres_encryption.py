"""Network connections to PostgreSQL: trusted certificates, accepted users, and error texts.

The PostgreSQL of the wheel does not support TLS. PgBouncer does, with PostgreSQL's protocol.
"""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from tests.pooler import Pooler
from tests.postgres import FAST, PostgresServer, run_in_thread

from uplift_server.store.errors import Misaddressed, Unavailable
from uplift_server.store.postgres import inspection, schema_version

RIGHTS = """
local all all trust
host all keyed 127.0.0.1/32 scram-sha-256
host all asked 127.0.0.1/32 radius radiusservers=127.0.0.1 radiusports=1 radiussecrets=x
host all postgres,nobody,closed 127.0.0.1/32 trust
"""

NOW = datetime.now(UTC)
DAY = timedelta(days=1)

Address = Callable[..., str]
"""Returns a database URL with the given parameters. A keyword argument can replace the host or the user."""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """The certificate authority of the database."""
    return trustme.CA()


@contextmanager
def encrypted(
    server: PostgresServer, authority: trustme.CA, *, client_auth: str, certificate: trustme.LeafCert | None = None
) -> Iterator[Address]:
    """A database at `localhost` that requires TLS. `client_auth` is the required client authentication."""
    certificate = certificate or authority.issue_cert("localhost")
    pooler = Pooler(
        server.directory,
        client_tls_sslmode=client_auth,
        client_tls_cert_file=certificate.cert_chain_pems[0].bytes(),
        client_tls_key_file=certificate.private_key_pem.bytes(),
        client_tls_ca_file=authority.cert_pem.bytes(),
    )
    yield (
        lambda parameters, host="localhost": (
            f"postgresql://postgres@{host}:{pooler.port}/postgres?pooler=transaction&{parameters}"
        )
    )
    pooler.close()


@pytest.fixture(scope="module")
def address(postgres_server: PostgresServer, authority: trustme.CA) -> Iterator[Address]:
    """The address of a database that trusts every client."""
    with encrypted(postgres_server, authority, client_auth="require") as address:
        yield address


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory and environment without PostgreSQL settings."""
    for name in list(os.environ):
        if name.startswith("PG"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The certificate file of the authority. The system trusts this authority."""
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(file)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    return file


async def reach(url: str) -> None:
    """Check that a database can be reached. Raises Unavailable."""
    assert (await inspection.inspect(url)).version >= 15


@pytest.mark.parametrize("parameters", ["sslmode=verify-full", "sslmode=verify-full&sslrootcert=system"])
@pytest.mark.usefixtures("trusted")
async def test_system_authorities_are_the_default(address: Address, parameters: str) -> None:
    await reach(address(parameters))


async def test_a_private_authority_is_trusted(
    address: Address, authority: trustme.CA, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The certificate of the authority is in the file that a parameter names, or in the default file of libpq."""
    file = home / ".postgresql" / "root.crt"
    file.parent.mkdir()
    authority.cert_pem.write_to_path(file)
    await reach(address("sslmode=verify-full"))
    monkeypatch.setenv("HOME", "/nonexistent")
    await reach(address(f"sslmode=verify-full&sslrootcert={file}"))


@pytest.mark.usefixtures("trusted")
async def test_system_authorities_require_verify_full(
    address: Address, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """System authorities issue certificates for any host, so the host name must be verified, too."""
    assert not home.joinpath(".postgresql").exists()
    with pytest.raises(Misaddressed, match=r"root certificate file .* does not exist.*; .* or set sslmode=verify-full"):
        await reach(address("sslmode=verify-ca"))
    monkeypatch.setenv("PGSSLROOTCERT", "system")
    for parameters in ("sslmode=verify-ca", "sslmode=require", "sslmode=prefer", ""):
        with pytest.raises(Misaddressed, match="requires sslmode=verify-full"):
            await reach(address(parameters))


@pytest.mark.usefixtures("trusted")
async def test_a_revoked_certificate_is_rejected(
    postgres_server: PostgresServer, authority: trustme.CA, home: Path
) -> None:
    certificate = authority.issue_cert("localhost")
    revoked = home / ".postgresql" / "root.crl"
    revoked.parent.mkdir()
    with encrypted(postgres_server, authority, client_auth="require", certificate=certificate) as address:
        for parameters in ("sslmode=verify-full", "sslmode=verify-full&sslrootcert=system"):
            revoked.write_bytes(revocations(authority))
            await reach(address(parameters))
            revoked.write_bytes(revocations(authority, certificate))
            with pytest.raises(Misaddressed, match=r"is not valid: certificate revoked; replace the certificate"):
                await reach(address(parameters))
            revoked.write_bytes(b"")
            with pytest.raises(Misaddressed, match=r"root\.crl: .*; correct"):
                await reach(address(parameters))


def revocations(authority: trustme.CA, *revoked: trustme.LeafCert) -> bytes:
    """Return the revocation list of an authority."""
    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    key = load_pem_private_key(authority.private_key_pem.bytes(), None)
    made = x509.CertificateRevocationListBuilder(issuer.subject, NOW - DAY, NOW + DAY)
    for each in revoked:
        number = x509.load_pem_x509_certificate(each.cert_chain_pems[0].bytes()).serial_number
        made = made.add_revoked_certificate(x509.RevokedCertificateBuilder(number, NOW - DAY).build())
    return made.sign(key, SHA256()).public_bytes(Encoding.PEM)  # type: ignore[arg-type]


@pytest.mark.usefixtures("trusted")
async def test_a_missing_home_directory_has_no_files(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    await reach(address("sslmode=verify-full"))


async def test_an_untrusted_certificate_is_rejected(address: Address, home: Path) -> None:
    other = home / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    for parameters in ("verify-full", "verify-full&sslrootcert=system", f"verify-ca&sslrootcert={other}"):
        with pytest.raises(Misaddressed, match=r"its certificate is not valid: .*; set sslrootcert"):
            await reach(address(f"sslmode={parameters}"))
    other.write_text("no certificate")
    with pytest.raises(Misaddressed, match="correct sslrootcert"):
        await reach(address(f"sslmode=verify-full&sslrootcert={other}"))


async def test_a_certificate_for_another_host_is_rejected(address: Address, trusted: Path) -> None:
    for authority in ("", f"&sslrootcert={trusted}"):
        with pytest.raises(Misaddressed, match=r"its certificate is not valid: .*127\.0\.0\.1.*, use the host name"):
            await reach(address(f"sslmode=verify-full{authority}", host="127.0.0.1"))
    await reach(address(f"sslmode=verify-ca&sslrootcert={trusted}", host="127.0.0.1"))


@pytest.mark.usefixtures("trusted")
async def test_an_expired_or_future_certificate_is_a_temporary_error(
    postgres_server: PostgresServer, authority: trustme.CA
) -> None:
    """The URL is correct: the fix is to renew the certificate or to correct a clock."""
    for begins, ends, fix in ((-2, -1, "renew the certificate"), (1, 2, "correct the clock of this machine")):
        certificate = authority.issue_cert("localhost", not_before=NOW + begins * DAY, not_after=NOW + ends * DAY)
        with encrypted(postgres_server, authority, client_auth="require", certificate=certificate) as address:
            with pytest.raises(Unavailable, match=f"its certificate is not valid: .*; .*{fix}") as raised:
                await reach(address("sslmode=verify-full"))
            assert not isinstance(raised.value, Misaddressed)


async def test_the_client_certificate_is_sent(
    postgres_server: PostgresServer, authority: trustme.CA, trusted: Path, home: Path
) -> None:
    own = authority.issue_cert("uplift")
    certificate, key = home / "own.crt", home / "own.key"
    own.cert_chain_pems[0].write_to_path(certificate)
    own.private_key_pem.write_to_path(key)
    with encrypted(postgres_server, authority, client_auth="verify-ca") as address:
        with pytest.raises(Unavailable) as raised:
            await reach(address("sslmode=verify-full"))
        # PgBouncer rejects the missing certificate only after the handshake, so the error is not Misaddressed.
        assert not isinstance(raised.value, Misaddressed)
        for named in ("", f"&sslrootcert={trusted}"):
            await reach(address(f"sslmode=verify-full&sslcert={certificate}&sslkey={key}{named}"))
        own_files = home / ".postgresql"
        own_files.mkdir()
        certificate.rename(own_files / "postgresql.crt")
        key.rename(own_files / "postgresql.key")
        await reach(address("sslmode=verify-full"))
        (own_files / "postgresql.key").write_text("no key")
        for parameters in ("sslmode=verify-full", f"sslmode=verify-full&sslrootcert={trusted}"):
            with pytest.raises(Misaddressed, match="correct sslrootcert, sslcert or sslkey"):
                await reach(address(parameters))


@pytest.fixture(scope="module")
def plain() -> Iterator[Address]:
    """The address of a database without encryption that rejects most users."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = PostgresServer(FAST, port=port)
    server.execute("CREATE ROLE keyed LOGIN PASSWORD 'right'; CREATE ROLE closed NOLOGIN; CREATE ROLE asked LOGIN")
    rights = Path(run_in_thread(_setting(server.url("postgres"), "hba_file")))
    rights.write_text(RIGHTS)
    server.execute("SELECT pg_reload_conf()")
    yield lambda parameters, user="postgres": f"postgresql://{user}@localhost:{port}/postgres?{parameters}"
    server.close()


async def _setting(url: str, name: str) -> str:
    connection = await asyncpg.connect(url)
    value: str = await connection.fetchval("SELECT current_setting($1)", name)
    await connection.close()
    return value


@pytest.mark.parametrize(
    ("user", "fix"),
    [
        ("keyed", "correct the user and password"),
        ("keyed:wrong", "correct the user and password"),
        ("other", "sslmode=verify-full"),
        ("nobody", "CREATE ROLE"),
        ("closed", "allow the connection"),
    ],
)
async def test_rejected_users_get_a_fix(plain: Address, user: str, fix: str) -> None:
    with pytest.raises(Misaddressed, match=f"the server cannot use the database: .*; .*{fix}"):
        await reach(plain("sslmode=disable", user=user))
    await reach(plain("sslmode=prefer", user="keyed:right"))


async def test_missing_privileges_are_named(plain: Address) -> None:
    with pytest.raises(Misaddressed, match=r"permission denied for schema public; .*OWNER TO"):
        await schema_version.prepare(plain("sslmode=disable", user="keyed:right"))


async def test_an_unknown_host_is_a_temporary_error() -> None:
    with pytest.raises(Unavailable, match=r"cannot resolve the host of the database: .*; check") as raised:
        await reach("postgresql://postgres@nowhere.invalid/postgres")
    assert not isinstance(raised.value, Misaddressed)


async def test_an_outage_of_an_authentication_service_is_a_temporary_error(plain: Address) -> None:
    with pytest.raises(
        Unavailable, match=r"RADIUS authentication failed .*; check that this authentication service"
    ) as raised:
        await reach(plain("sslmode=disable", user="asked:x"))
    assert not isinstance(raised.value, Misaddressed)


async def test_a_database_without_encryption_is_reported(plain: Address, trusted: Path) -> None:
    for parameters in ("require", "verify-full", f"verify-full&sslrootcert={trusted}"):
        with pytest.raises(Misaddressed, match="does not offer TLS, or is not PostgreSQL; set ssl = on"):
            await reach(plain(f"sslmode={parameters}"))
