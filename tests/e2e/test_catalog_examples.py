"""A server accepts every example of the event catalog."""

import json
import re
from pathlib import Path

from .harness import Server

PAGE = Path(__file__).parents[2] / "docs/catalog.md"


def test_every_example_of_the_catalog_is_accepted(server: Server) -> None:
    _, operator = server.account()
    text = PAGE.read_text(encoding="utf-8")
    examples = list(re.finditer(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    assert len(examples) >= 6
    for example in examples:
        name = re.findall(r"^## `([a-z._]+)`$", text[: example.start()], re.MULTILINE)[-1]
        operator.ok("POST", "/v1/events", {"type": name, "data": json.loads(example[1])})
