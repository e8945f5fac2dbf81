"""The table of Helm chart values. The comments in values.yaml become the descriptions of the values."""

import json
import re
from pathlib import Path
from typing import Any, Final

import yaml

from uplift_server.api.documentation.reference_tables import table

VALUES: Final = Path(__file__).resolve().parents[1] / "deploy/helm/uplift-webhooks/values.yaml"


def chart_values() -> str:
    """Return the table of values. Groups of documented values have no default."""
    text = VALUES.read_text(encoding="utf-8")
    described = _descriptions(text)
    defaults = yaml.safe_load(text)
    rows = []
    for path, description in described.items():
        is_group = any(each.startswith(f"{path}.") for each in described)
        rows.append((f"`{path}`", "" if is_group else _shown(defaults, path), description))
    return table(("Value", "Default", "Description"), rows)


def _descriptions(text: str) -> dict[str, str]:
    """Return the comment before each value by its path. A blank line ends a comment."""
    described: dict[str, str] = {}
    comment: list[str] = []
    parents: list[str] = []
    for line in text.splitlines():
        if found := re.match(r" *# (.+)", line):
            comment.append(found[1])
            continue
        if found := re.match(r"((?:  )*)(\w+):", line):
            parents = [*parents[: len(found[1]) // 2], found[2]]
            if comment:
                described[".".join(parents)] = " ".join(comment)
        comment = []
    return described


def _shown(defaults: Any, path: str) -> str:
    for key in path.split("."):
        defaults = defaults[key]
    return f"`{json.dumps(defaults)}`"
