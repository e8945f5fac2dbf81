"""Authentication to endpoints: OAuth client credentials and client certificates in the API."""

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

URL = "https://example.com/uplift"
OAUTH = {
    "type": "oauth2_client_credentials", "token_url": "https://login.example.com/token?tenant=7",
    "client_id": "uplift", "client_secret": "hush-hush", "scope": "a:b c",
}  # fmt: skip
SHOWN = {name: value for name, value in OAUTH.items() if name != "client_secret"}


def pem(key: Any, encryption: KeySerializationEncryption | None = None) -> str:
    made: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    return made.decode()


def certificate(key: Any, name: str = "uplift", *, days: int = 365) -> str:
    """Return a self-signed certificate that expires in `days` days."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
    built = x509.CertificateBuilder(
        subject, subject, key.public_key(), 7, end - timedelta(days=800), end
    ).sign(key, SHA256() if not isinstance(key, ed25519.Ed25519PrivateKey) else None)  # fmt: skip
    return built.public_bytes(Encoding.PEM).decode()


@cache
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def other_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def unknown_curve() -> str:
    """Return a certificate with a public key that cannot be read."""
    content = x509.load_pem_x509_certificate(certificate(ec_key()).encode()).public_bytes(Encoding.DER)
    curve = bytes.fromhex("06082a8648ce3d0301")
    assert content.count(curve) == 1
    content = content.replace(curve + b"\x07", curve + b"\x77")
    return x509.load_der_x509_certificate(content).public_bytes(Encoding.PEM).decode()


def mtls(key: Any = None, **changes: Any) -> dict[str, Any]:
    key = key or ec_key()
    return {"type": "mtls", "certificate": certificate(key), "private_key": pem(key), **changes}


def test_credentials_are_stored_without_being_returned(server: Any) -> None:
    owner = server.owner(server.account())
    created = owner.post("/v1/endpoints", {"url": URL, "auth": OAUTH}).json
    assert created["auth"] == SHOWN
    path = f"/v1/endpoints/{created['id']}"
    etag = owner.get(path).headers["etag"]
    assert owner.patch(path, {"auth": OAUTH}).headers["etag"] == etag
    assert owner.patch(path, {"description": "x"}).json["auth"] == SHOWN
    changed = owner.patch(path, {"auth": {**OAUTH, "scope": None}}).json
    assert changed["auth"] == {**SHOWN, "scope": None}
    assert owner.patch(path, {"auth": mtls()}).json["auth"]["type"] == "mtls"
    assert owner.patch(path, {"auth": None}).json["auth"] is None
    assert owner.put("/v1/endpoints/own", {"url": URL, "auth": OAUTH}).json["auth"] == SHOWN
    assert owner.put("/v1/endpoints/own", {"url": URL}).json["auth"] == SHOWN
    assert [each["auth"] for each in owner.get("/v1/endpoints").json["data"]] == [SHOWN, None]


def test_the_audit_log_has_no_secrets(server: Any) -> None:
    account = server.account()
    owner = server.owner(account)
    endpoint = owner.post("/v1/endpoints", {"url": URL, "auth": OAUTH}).json["id"]
    path = f"/v1/endpoints/{endpoint}"
    owner.patch(path, {"auth": {**OAUTH, "client_secret": "hush-hush-2"}})
    owner.patch(path, {"auth": mtls()})
    entries = owner.get(f"/v1/audit-log?subject={endpoint}").json["data"]
    assert "hush" not in str(entries)
    assert "BEGIN" not in str(entries)
    assert "tenant" not in str(entries)
    replaced, rotated, created = (each["details"] for each in entries)
    shown = {**SHOWN, "token_url": "https://login.example.com/token"}
    assert created["auth"] == shown
    assert rotated == {"changed": ["auth_secret"]}
    assert replaced["changed"] == ["auth", "auth_secret"]
    assert (replaced["from"]["auth"], replaced["to"]["auth"]["type"]) == (shown, "mtls")


def test_a_certificate_is_shown_by_its_facts(server: Any) -> None:
    owner = server.owner(server.account())
    authority = trustme.CA()
    leaf = authority.issue_cert(common_name="uplift")
    chain = "".join(each.bytes().decode() for each in (*leaf.cert_chain_pems, authority.cert_pem))
    key = leaf.private_key_pem.bytes().decode()
    sent = {"type": "mtls", "certificate": chain, "private_key": key}
    found = owner.post("/v1/endpoints", {"url": URL, "auth": sent}).json["auth"]
    first, second = x509.load_pem_x509_certificates(chain.encode())
    expires_at = min(first.not_valid_after_utc, second.not_valid_after_utc)
    assert found == {
        "type": "mtls",
        "subject": first.subject.rfc4514_string(),
        "fingerprint": first.fingerprint(SHA256()).hex(),
        "expires_at": expires_at.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
    }
    assert owner.post("/v1/endpoints", {"url": URL, "auth": mtls(rsa.generate_private_key(65537, 2048))}).status == 201


ENCRYPTED = BestAvailableEncryption(b"x")
NO_CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@cache
def expired() -> str:
    return certificate(other_key(), days=-1)


@pytest.mark.parametrize(
    ("auth", "problem"),
    [
        ({"type": "mtls"}, ("auth.certificate", "required")),
        ({}, ("auth", "required")),
        ({"type": "basic"}, ("auth", "value_unknown")),
        ("x", ("auth", "type_object")),
        ({**OAUTH, "password": "x"}, ("auth.password", "unknown_field")),
        ({**OAUTH, "client_id": 7}, ("auth.client_id", "type_text")),
        ({**OAUTH, "client_id": ""}, ("auth.client_id", "required")),
        ({**OAUTH, "client_secret": "ü"}, ("auth.client_secret", "characters_invalid")),
        ({**OAUTH, "scope": ""}, ("auth.scope", "characters_invalid")),
        ({**OAUTH, "token_url": "x"}, ("auth.token_url", "url_invalid")),
        ({**OAUTH, "token_url": "http://login.example.com"}, ("auth.token_url", "https_required")),
        ({**OAUTH, "token_url": "https://10.0.0.1/token"}, ("auth.token_url", "address_not_allowed")),
        # The cases with keys are functions, because generating all keys takes a second.
        (lambda: mtls(certificate="x"), ("auth.certificate", "certificate_invalid")),
        (lambda: mtls(certificate=NO_CERTIFICATE), ("auth.certificate", "certificate_invalid")),
        (lambda: mtls(certificate="\0"), ("auth.certificate", "certificate_invalid")),
        (lambda: mtls(other_key(), certificate=expired()), ("auth.certificate", "certificate_expired")),
        (lambda: mtls(certificate=certificate(ec_key()) + expired()), ("auth.certificate", "certificate_expired")),
        (lambda: mtls(certificate=certificate(ec_key()) * 100), ("auth.certificate", "too_long")),
        (lambda: mtls(private_key="x"), ("auth.private_key", "private_key_invalid")),
        (lambda: mtls(private_key=pem(ec_key(), ENCRYPTED)), ("auth.private_key", "private_key_invalid")),
        (lambda: mtls(private_key=pem(other_key())), ("auth.private_key", "private_key_mismatch")),
        (lambda: mtls(dsa.generate_private_key(2048)), ("auth.private_key", "private_key_invalid")),
        (lambda: mtls(ed25519.Ed25519PrivateKey.generate()), ("auth.private_key", "private_key_invalid")),
        (lambda: mtls(rsa.generate_private_key(65537, 4104)), ("auth.private_key", "private_key_invalid")),
        (lambda: mtls(rsa.generate_private_key(65537, 1024)), ("auth.certificate", "certificate_invalid")),
        (lambda: mtls(certificate=unknown_curve()), ("auth.certificate", "certificate_invalid")),
    ],
)  # fmt: skip
def test_a_problem_names_its_field(server: Any, auth: Any, problem: tuple[str, str]) -> None:
    owner = server.owner(server.account())
    auth = auth() if callable(auth) else auth
    for response in (
        owner.post("/v1/endpoints", {"url": URL, "auth": auth}),
        owner.patch(f"/v1/endpoints/{owner.post('/v1/endpoints', {'url': URL}).json['id']}", {"auth": auth}),
    ):
        assert response.status == 422
        assert problem in response.problems
        assert {field for field, _ in response.problems} <= {"auth", *(f"auth.{name}" for name in (
            "certificate", "private_key", "client_id", "client_secret", "scope", "token_url", "password"))}  # fmt: skip
        assert "hush" not in str(response.json)
        assert "BEGIN PRIVATE" not in str(response.json)


def test_an_authorization_header_conflicts_with_oauth(server: Any) -> None:
    owner = server.owner(server.account())
    headers = {"Authorization": "Basic abc", "X-A": "1"}
    wrong = owner.post("/v1/endpoints", {"url": URL, "auth": OAUTH, "headers": headers})
    assert wrong.problems == {("headers.Authorization", "header_forbidden")}
    endpoint = owner.post("/v1/endpoints", {"url": URL, "headers": headers}).json["id"]
    path = f"/v1/endpoints/{endpoint}"
    assert owner.patch(path, {"auth": OAUTH}).problems == {("headers.Authorization", "header_forbidden")}
    assert owner.patch(path, {"auth": mtls()}).status == 200
    assert owner.patch(path, {"auth": OAUTH, "headers": {"authorization": None}}).status == 200
    assert owner.patch(path, {"headers": headers}).problems == {("headers.Authorization", "header_forbidden")}
