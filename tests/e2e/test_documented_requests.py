"""A server accepts every documented request body, event and schema."""

import json
import re
import shlex
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from .harness import OPERATOR_KEY, Server
from .receiving import Receiver

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "receiver/README.md"]
RUN_ELSEWHERE = {"sending.md"}
"""Pages whose commands `tests/receiver/test_guide.py` runs."""


class Documented(NamedTuple):
    """A request from a documentation page."""

    page: str
    command: str


def blocks(page: Path, *languages: str) -> Iterator[tuple[str, str]]:
    """Return the code blocks of a page, each with the text before it."""
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if found[1] in languages:
            yield text[: found.start()], found[2]


def commands() -> list[Documented]:
    """Return the curl commands with a body."""
    found = []
    for page in PAGES:
        if page.name in RUN_ELSEWHERE:
            continue
        for _, block in blocks(page, "sh", "console"):
            lines = block.replace("\\\n", " ").splitlines()
            found += [Documented(page.name, line) for line in lines if re.search(r"curl .*(-d|--data\S*) ['\"]", line)]
    return found


@pytest.fixture(scope="module")
def variables(server: Server) -> Iterator[dict[str, str]]:
    """Return the values of the variables in documented commands."""
    receiver = Receiver()
    account, operator = server.account()
    key = operator.ok("POST", f"/v1/accounts/{account}/keys", {"name": "documentation"})["key"]
    yield {
        "UPLIFT_API_URL": server.url,
        "API": f"{server.url}/v1",
        "OP": OPERATOR_KEY,
        "KEY": key,
        "ACCOUNT": account,
        "ENDPOINT": operator.endpoint(receiver.url("/documented"))["id"],
        "MEMBER": "mem_0197f0c2a1b27c3d8e4f0123456789ab",
        "SESSION": server.api(key).ok("POST", "/v1/listen-sessions", {})["id"],
    }
    receiver.close()


def parsed(command: str, variables: dict[str, str]) -> tuple[str, str, dict[str, str], bytes]:
    """Return the method, URL, headers and body of a curl command, parsed like a shell and curl do."""
    text = re.sub(r"\$([A-Z_]+)", lambda name: variables[name[1]], command.replace("$(uuidgen)", str(uuid.uuid4())))
    words = shlex.split(text[text.index("curl ") :])
    headers: dict[str, str] = {}
    method, url, body = "POST", "", b""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "-X":
            method = following
        elif word == "-H":
            name, _, value = following.partition(": ")
            headers[name.lower()] = value
        elif word in {"-d", "--data"}:
            body = following.encode()
        elif word.startswith("http"):
            url = word
    return method, url, headers, body


def test_every_documented_request_body_is_accepted(server: Server, variables: dict[str, str]) -> None:
    found = commands()
    assert len(found) >= 18
    for page, command in found:
        method, url, headers, body = parsed(command, variables)
        path = url.removeprefix(server.url)
        assert headers["content-type"] == "application/json", command
        answer = server.api("")(method, path, body, **headers)
        if answer.status in {401, 403}:
            # In calls of operators, `$KEY` is an operator key.
            headers |= {"authorization": f"Bearer {OPERATOR_KEY}", "uplift-account": variables["ACCOUNT"]}
            answer = server.api("")(method, path, body, **headers)
        # There is no connected listen session and no member. The API checks both after the body.
        expected = {404} if "/members/" in path else {409} if "/listen-sessions/" in path else {200, 201, 202}
        assert answer.status in expected, (page, command, answer.body)


def test_every_example_of_the_catalog_is_accepted(server: Server) -> None:
    _, operator = server.account()
    examples = list(blocks(ROOT / "docs/catalog.md", "json"))
    assert len(examples) >= 6
    for before, block in examples:
        name = re.findall(r"^## `([a-z._]+)`$", before, re.MULTILINE)[-1]
        operator.ok("POST", "/v1/events", {"type": name, "data": json.loads(block)})
