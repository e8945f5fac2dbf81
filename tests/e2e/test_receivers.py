"""Receivers without our code verify every request: the receiver of the help center article, and public libraries."""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3
from tests.receiver.toolchains import PROGRAMS as LANGUAGES
from tests.receiver.toolchains import node_packages
from tests.tools import tool

from .harness import TYPE, Api, Server, wait_for

PROGRAMS = Path(__file__).parent.parent / "receiver"
CHOSEN = {"secret": "a-token-of-my-own-choice"}
# Texts that JSON and UTF-8 parsers may handle incorrectly.
DATA: list[dict[str, Any]] = [
    {},
    {"name": 'Zoë "Zuzu" Ångström \u2028 😀', "escaped": "\\u0000\n\t"},
    {"number": 12345678901234567890, "float": 1.0, "small": 1e-7, "null": None},
    {"nested": [[[{"deep": [1, 2, 3]}]]], "long": "x" * 100_000},
]


def running(program: str, secret: str) -> AbstractContextManager[str]:
    """Run the Python receiver. Return its URL."""
    return _running([sys.executable, PROGRAMS / program], secret)


def running_node(secret: str) -> AbstractContextManager[str]:
    """Run the JavaScript receiver. Return its URL. Skips the test if the machine cannot run it."""
    packages = str(node_packages())
    return _running([tool("node"), LANGUAGES / "node/receiver.js"], secret, NODE_PATH=packages)


@contextmanager
def _running(command: list[str | Path], secret: str, **environ: str) -> Iterator[str]:
    process = subprocess.Popen(
        command,
        env={**os.environ, "SECRET": secret, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    try:
        port = int(process.stdout.readline().split()[-1])
        yield f"http://127.0.0.1:{port}"
    finally:
        watchdog.cancel()
        process.kill()
        process.wait(5)
        process.stdout.close()


def test_generated_and_custom_secrets_verify_with_article_and_library(server: Server) -> None:
    _, api = server.account()
    endpoints = [api.endpoint("http://127.0.0.1:9/not-yet", **fields) for fields in ({}, {}, CHOSEN, CHOSEN)]
    first, second = endpoints[0]["secret"], endpoints[1]["secret"]
    with (
        running("article_receiver.py", first) as article_generated,
        running("standard_receiver.py", second) as standard_generated,
        running("article_receiver.py", CHOSEN["secret"]) as article_chosen,
        running("standard_receiver.py", _standard_form(CHOSEN["secret"])) as standard_chosen,
    ):
        urls = [article_generated, standard_generated, article_chosen, standard_chosen]
        _verify_all(api, dict(zip(urls, endpoints, strict=True)))


def test_generated_and_custom_secrets_verify_with_the_npm_packages(server: Server) -> None:
    _, api = server.account()
    endpoints = [api.endpoint("http://127.0.0.1:9/not-yet", **fields) for fields in ({}, CHOSEN)]
    shown = api.ok("GET", f"/v1/endpoints/{endpoints[1]['id']}/secret")["standard_webhooks_secret"]
    with running_node(endpoints[0]["secret"]) as generated, running_node(shown) as chosen:
        _verify_all(api, dict(zip([generated, chosen], endpoints, strict=True)))


def _verify_all(api: Api, endpoints: dict[str, Any]) -> None:
    """Send texts that are difficult to parse. Each receiver must verify each of them once.

    `endpoints` maps the URL of each receiver to its endpoint.
    """
    for url, endpoint in endpoints.items():
        api.ok("PATCH", f"/v1/endpoints/{endpoint['id']}", {"url": url + "/webhook/submit"})
    sent = [
        api.ok("POST", "/v1/events", json.dumps({"type": TYPE, "data": data}, ensure_ascii=escaped).encode())["id"]
        for data in DATA
        for escaped in (True, False)
    ]
    for url in endpoints:
        wait_for(lambda url=url: set(sent) <= set(_received(url)["ids"]), f"{url} verified all")
        assert _received(url)["rejected"] == 0
        assert all(_received(url)["ids"].count(each) == 1 for each in sent)


@pytest.mark.parametrize("program", ["article_receiver.py", "standard_receiver.py"])
def test_a_receiver_with_a_wrong_secret_rejects_all_requests(server: Server, program: str) -> None:
    _, api = server.account()
    with running(program, "whsec_" + "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=") as url:
        endpoint = api.endpoint(url + "/webhook/submit")
        wait_for(lambda: _received(url)["rejected"] >= 1, "the receiver rejects the registration event")
        assert _received(url)["verified"] == 0
        delivery = api.ok("GET", f"/v1/endpoints/{endpoint['id']}/deliveries")["data"][0]["id"]
        attempt = wait_for(
            lambda: api.ok("GET", f"/v1/deliveries/{delivery}/attempts")["data"], "an attempt is stored"
        )[0]
        assert attempt["outcome"] == "client_error"
        assert attempt["hint"]


def _standard_form(token: str) -> str:
    return "whsec_" + base64.b64encode(token.encode()).decode()


def _received(url: str) -> Any:
    return urllib3.request("GET", url + "/received", timeout=5, retries=False).json()
