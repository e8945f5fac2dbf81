"""The library's README works as printed and leaves no reason out."""

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from uplift_webhooks import Reason
from uplift_webhooks.testing import sign

README = (Path(__file__).parents[2] / "receiver/README.md").read_text(encoding="utf-8")
SECRET = "0123456789abcdef"
EVENT = {
    "id": "0197f0c2-0000-7000-8000-000000000001",
    "type": "movement.analytics.created",
    "data": {"object": {"data": {"url": "https://cdn.example/export.csv"}}},
}


def test_the_flask_snippet_verifies_and_refuses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UPLIFT_WEBHOOK_SECRET", SECRET)
    [snippet] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    namespace: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(snippet, "README.md", "exec"), namespace)
    client = namespace["app"].test_client()
    body = json.dumps(EVENT).encode()

    assert client.post("/webhook", data=body, headers=sign(body, SECRET)).status_code == 204
    assert "https://cdn.example/export.csv" in capsys.readouterr().out
    assert client.post("/webhook", data=body + b" ", headers=sign(body, SECRET)).status_code == 400
    assert client.post("/webhook", data=body).status_code == 400


def test_every_reason_is_explained() -> None:
    assert not [reason for reason in get_args(Reason) if f"`{reason}`" not in README]
