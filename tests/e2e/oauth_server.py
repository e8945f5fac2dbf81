"""An OAuth 2.0 server that uses Authlib, and a receiver that requires its tokens, in a separate process."""

import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import urllib3
from authlib.integrations.flask_oauth2 import AuthorizationServer, ResourceProtector
from authlib.oauth2.rfc6749 import ClientMixin, grants
from authlib.oauth2.rfc6750 import BearerTokenValidator
from flask import Flask, Response, request
from werkzeug.serving import WSGIRequestHandler, make_server


class OAuthServer:
    """Controls the process from a test."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        self.url = f"http://127.0.0.1:{int(process.stdout.readline())}"

    def auth(self, **changes: str) -> dict[str, str]:
        """Return an endpoint's authentication settings."""
        return {
            "type": "oauth2_client_credentials",
            "token_url": f"{self.url}/token",
            "client_id": "uplift hooks",
            "client_secret": "s3cret: of/the+client %41",
            "scope": "hooks:write hooks:read",
            **changes,
        }

    def set(self, **state: Any) -> None:
        """Change the behavior of the server."""
        urllib3.request("POST", f"{self.url}/state", json=state)

    def seen(self) -> Any:
        """Return the tokens that the server issued, and the requests that the receiver got."""
        return urllib3.request("GET", f"{self.url}/seen").json()


@contextlib.contextmanager
def oauth_server() -> Iterator[OAuthServer]:
    """Run the process during the block."""
    environ = {**os.environ, "AUTHLIB_INSECURE_TRANSPORT": "1"}
    process = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True, env=environ)
    try:
        yield OAuthServer(process)
    finally:
        process.kill()
        process.communicate()


class _Client(ClientMixin):
    def __init__(self, client_secret: str) -> None:
        self.client_secret = client_secret

    def get_client_id(self) -> str:
        return "uplift hooks"

    def get_allowed_scope(self, scope: str) -> str:
        return " ".join(each for each in scope.split() if each.startswith("hooks:"))

    def check_client_secret(self, client_secret: str) -> bool:
        return secrets.compare_digest(client_secret, self.client_secret)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "client_secret_basic"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "client_credentials"


class _Token:
    def __init__(self, token: dict[str, Any]) -> None:
        self.text = token["access_token"]
        self.scope = token["scope"]
        self.expires_at = time.time() + token["expires_in"]
        self.revoked = False

    def get_scope(self) -> str:
        return str(self.scope)

    def is_expired(self) -> bool:
        return time.time() >= self.expires_at

    def is_revoked(self) -> bool:
        return self.revoked


_FAULTS: dict[str | None, Callable[[], Response]] = {
    "huge": lambda: Response((b"x" * 65_536 for _ in range(10_000)), mimetype="application/json"),
    "redirect": lambda: Response(status=307, headers={"location": "/elsewhere"}),
    "down": lambda: Response("secret=s3cret: of/the+client %41", 503, {"retry-after": "1"}),
    "page": lambda: Response("<html>Sign in</html>"),
}


def _app() -> Flask:
    app = Flask("oauth")
    state: dict[str, Any] = {"secret": "s3cret: of/the+client %41", "fault": None, "expires_in": 3600}
    tokens: dict[str, _Token] = {}
    received: list[dict[str, Any]] = []
    requested: list[float] = []

    def save(token: dict[str, Any], _request: object) -> None:
        tokens[token["access_token"]] = _Token(token)

    server = AuthorizationServer(app, lambda _id: _Client(state["secret"]), save)
    server.register_grant(grants.ClientCredentialsGrant)
    server.register_token_generator("default", lambda *_, scope=None, **__: {
        "token_type": "Bearer", "access_token": "tok." + secrets.token_urlsafe(7_500),
        "expires_in": state["expires_in"], "scope": scope,
    })  # fmt: skip
    grants.ClientCredentialsGrant.TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic"]

    class Validator(BearerTokenValidator):
        def authenticate_token(self, token_string: str) -> _Token | None:
            return tokens.get(token_string)

    protect = ResourceProtector()
    protect.register_token_validator(Validator())

    @app.post("/token")
    def token() -> Any:
        requested.append(time.time())
        if state["fault"] == "slow":
            time.sleep(30)
        fault = _FAULTS.get(state["fault"])
        return server.create_token_response() if fault is None else fault()

    @app.post("/hook")
    @protect("hooks:write")
    def hook() -> str:
        received.append({"token": request.headers["authorization"].split()[1], "body": request.get_json()})
        return "ok"

    @app.post("/state")
    def change() -> str:
        sent = request.get_json()
        if sent.pop("revoke", False):
            for each in tokens.values():
                each.revoked = True
        state.update(sent)
        return ""

    @app.get("/seen")
    def seen() -> Any:
        return {"tokens": list(tokens), "received": received, "requested": requested}

    return app


class _Silent(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        """Print nothing."""


if __name__ == "__main__":
    served = make_server("127.0.0.1", 0, _app(), threaded=True, request_handler=_Silent)
    sys.stdout.write(f"{served.port}\n")
    sys.stdout.flush()
    served.serve_forever()
