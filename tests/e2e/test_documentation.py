"""Links in webhook requests and API errors lead to documentation on the same server."""

import re
from urllib.parse import urljoin

import urllib3

from .harness import Server
from .receiving import Receiver


def shown(url: str) -> str:
    """Return a page as a visitor without a key sees it."""
    response = urllib3.request("GET", url, retries=False, timeout=10)
    assert response.status == 200, url
    return response.data.decode()


def test_user_agent_and_problem_type_link_to_the_documentation(server: Server, receiver: Receiver) -> None:
    _, api = server.account()
    api.endpoint(receiver.url("/curious"))
    assert api.send(1).status == 202
    (received,) = receiver.wait("/curious", 1)
    guide = re.fullmatch(r"Uplift-Webhooks/[\w.]+ \(\+(http\S+)\)", received.headers["user-agent"])
    assert guide is not None
    assert guide[1] == f"{server.url}/docs"
    assert "<h1" in shown(guide[1])
    assert 'id="before-you-go-live"' in shown(guide[1])

    rejected = api("POST", "/v1/endpoints", {"url": "https://example.com", "urll": 1}).json
    page, _, anchor = urljoin(f"{server.url}/v1/endpoints", rejected["type"]).partition("#")
    assert anchor == rejected["code"] == "validation_failed"
    assert f'<h2 id="{anchor}">' in shown(page)


def test_examples_have_the_address_of_the_server(server: Server) -> None:
    text = server.api("")("GET", "/docs").body.decode()
    assert f"{server.url}/packages/simple/" in text
    assert "webhooks.example" not in text
    assert server.api("")("GET", "/openapi.json").json["servers"] == [
        {"url": server.url, "description": "This server."}
    ]
