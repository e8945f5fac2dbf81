"""A server accepts every example of the event catalog, except events that only the server sends."""

import json
import re
from pathlib import Path

from uplift_server.core.events.operational import OPERATIONAL_TYPES

from .harness import Server

PAGE = Path(__file__).parents[2] / "docs/catalog.md"


def test_every_example_of_the_catalog_is_accepted(server: Server) -> None:
    _, operator = server.account()
    text = PAGE.read_text(encoding="utf-8")
    examples = list(re.finditer(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    assert len(examples) >= 6
    for example in examples:
        name = re.findall(r"^## `([a-z._]+)`$", text[: example.start()], re.MULTILINE)[-1]
        event = {"type": name, "data": json.loads(example[1])}
        if name in OPERATIONAL_TYPES:
            # Only the server sends events of these types.
            rejected = operator("POST", "/v1/events", event)
            assert [each["code"] for each in rejected.json["errors"]] == ["event_type_reserved"]
        else:
            operator.ok("POST", "/v1/events", event)
