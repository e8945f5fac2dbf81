"""A scripted identity provider: over real sockets, it issues the valid or invalid tokens that a test defines."""

import base64
import contextlib
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from joserfc import jws
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

CLIENT_ID = "uplift webhooks"
CLIENT_SECRET = "s3cret: of/the+client %41 with 32 bytes or more"
GROUP = "webhook operators"
READ_ONLY_GROUP = "webhook support"
ALGORITHMS = ["RS256", "ES256", "EdDSA", "HS256", "none", "RS512"]

Key = RSAKey | ECKey | OKPKey | OctKey


def new_key(algorithm: str, kid: str) -> Key:
    """Create a key with a key ID."""
    parameters = {"kid": kid, "use": "sig"}
    if algorithm == "RS256":
        return RSAKey.generate_key(2048, parameters)
    return (
        ECKey.generate_key("P-256", parameters) if algorithm == "ES256" else OKPKey.generate_key("Ed25519", parameters)
    )


@cache
def first_key() -> Key:
    """Return the key that every provider begins with. Creating it takes longer than most tests."""
    return new_key("RS256", "first")


def ann(**changes: Any) -> dict[str, Any]:
    """Return the claims of the person Ann, with changes."""
    return {"sub": "248289761001", "email": "ann@example.com", "email_verified": True, "name": "Ann Rivers", **changes}


@dataclass
class Code:
    """An unused authorization code."""

    query: dict[str, str]
    claims: dict[str, Any]
    header: dict[str, Any]
    key: Key | None


@dataclass
class Provider:
    """The state of the provider, which a test reads and changes."""

    url: str = ""
    now: Callable[[], float] = time.time
    keys: list[Key] = field(default_factory=lambda: [first_key()])
    metadata: dict[str, Any] = field(default_factory=dict)
    """Changes to the metadata. None removes a value."""
    userinfo: dict[str, Any] = field(default_factory=dict)
    """Claims in the userinfo response, besides `sub`."""
    subjects: dict[str, Any] = field(default_factory=dict)
    """The `sub` of each access token."""
    faults: dict[str, tuple[int, bytes] | None] = field(default_factory=dict)
    """Responses by path instead of the usual ones. None drops the connection."""
    requests: list[str] = field(default_factory=list)
    codes: dict[str, Code] = field(default_factory=dict)

    def authorize(
        self,
        url: str,
        claims: dict[str, Any],
        *,
        header: dict[str, Any] | None = None,
        key: Key | None = None,
        **changes: str | None,
    ) -> str:
        """Sign a person in at an authorization URL. Return the response query with `changes`. None removes a value."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert url.startswith(f"{self.url}/authorize?")
        assert query["response_type"] == "code"
        assert "openid" in query["scope"].split()
        code = secrets.token_urlsafe()
        self.codes[code] = Code(query, claims, header or {}, key)
        answer = {"code": code, "state": query["state"], **changes}
        return urlencode({name: value for name, value in answer.items() if value is not None})

    def serve(self, path: str, body: dict[str, str], authorization: str) -> tuple[int, Any]:
        """Return the response to a request."""
        if path == "/.well-known/openid-configuration":
            values = {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
                "userinfo_endpoint": f"{self.url}/userinfo",
                "end_session_endpoint": f"{self.url}/sign-out",
                **self.metadata,
            }
            return 200, {name: value for name, value in values.items() if value is not None}
        if path == "/keys":
            return 200, {"keys": [key.as_dict(private=False) for key in self.keys]}
        if path == "/userinfo":
            token = authorization.removeprefix("Bearer ")
            return (200, {"sub": self.subjects[token], **self.userinfo}) if token in self.subjects else (401, {})
        assert path == "/token"
        return self._tokens(body, authorization)

    def _tokens(self, body: dict[str, str], authorization: str) -> tuple[int, Any]:
        credentials = [unquote(each) for each in base64.b64decode(authorization[len("Basic ") :]).decode().split(":")]
        if [CLIENT_ID, CLIENT_SECRET] not in (credentials, [body.get("client_id"), body.get("client_secret")]):
            return 401, {"error": "invalid_client"}
        code = self.codes.pop(body["code"], None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(body["code_verifier"].encode()).digest()).decode()
        if (
            code is None
            or code.query["code_challenge_method"] != "S256"
            or code.query["code_challenge"] != challenge.rstrip("=")
            or code.query["redirect_uri"] != body["redirect_uri"]
        ):
            return 400, {"error": "invalid_grant"}
        now = int(self.now())
        claims = {
            "iss": self.url,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": code.query["nonce"],
            **code.claims,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        token = secrets.token_urlsafe()
        self.subjects[token] = claims.get("sub")
        return 200, {"id_token": self._signed(claims, code), "access_token": token, "token_type": "Bearer"}

    def _signed(self, claims: dict[str, Any], code: Code) -> str:
        key = code.key or self.keys[-1]
        algorithm = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA", "oct": "HS256"}[key.key_type]
        header = {"alg": algorithm, **({"kid": key.kid} if key.kid else {}), **code.header}
        header = {name: value for name, value in header.items() if value is not None}
        registry = jws.JWSRegistry(algorithms=ALGORITHMS)
        registry.get_alg = lambda name: registry.algorithms[name]  # type: ignore[method-assign] # without warnings
        return jws.serialize_compact(header, json.dumps(claims), key, registry=registry)


@contextlib.contextmanager
def identity_provider() -> Iterator[Provider]:
    """Run a provider during the block."""
    provider = Provider()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._serve({})

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["content-length"])).decode()
            self._serve({name: values[0] for name, values in parse_qs(text).items()})

        def _serve(self, body: dict[str, str]) -> None:
            provider.requests.append(self.path)
            if self.path in provider.faults:
                fault = provider.faults[self.path]
                if fault is None:
                    self.connection.close()
                    return
                status, content = fault
            else:
                status, values = provider.serve(self.path, body, self.headers.get("authorization", ""))
                content = json.dumps(values).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    provider.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
