"""Client addresses in the audit log behind proxies."""

import json
from typing import Any

from uplift_server.api.app import create_api
from uplift_server.api.forwarded import Forwarded
from uplift_server.core.http.forwarding import parse_networks


def audited_address(server: Any, trusted: str, *headers: tuple[bytes, bytes]) -> str | None:
    """Send a request with these headers, and return the client address in the audit log."""
    body = json.dumps({"name": "Riverside"}).encode()
    scope = {
        "type": "http", "method": "POST", "path": "/v1/accounts", "raw_path": b"/v1/accounts", "query_string": b"",
        "http_version": "1.1", "scheme": "http", "client": ("10.0.0.5", 4711), "server": ("127.0.0.1", 80),
        "headers": [(b"authorization", f"Bearer {server.operator_key}".encode()),
                    (b"content-type", b"application/json"), *headers],
    }  # fmt: skip
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    app = Forwarded(create_api(server.services), parse_networks(trusted))
    server.run(lambda: app(scope, receive, send))
    assert sent[0]["status"] == 201
    [entry] = server.operator.get("/v1/audit-log?limit=1").json["data"]
    return entry["address"]


def test_the_header_of_a_trusted_proxy_is_used(server: Any) -> None:
    header = (b"x-forwarded-for", b"198.51.100.9, 203.0.113.7")
    assert audited_address(server, "10.0.0.0/8", header) == "203.0.113.7"
    assert audited_address(server, "10.0.0.0/8", header, (b"x-forwarded-for", b"10.9.9.9")) == "203.0.113.7"
    assert audited_address(server, "10.0.0.0/8") == "10.0.0.5"


def test_the_header_of_other_clients_is_ignored(server: Any) -> None:
    assert audited_address(server, "192.0.2.1", (b"x-forwarded-for", b"203.0.113.7")) == "10.0.0.5"
