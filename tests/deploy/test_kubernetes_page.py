"""The Kubernetes guide: its values are values of the chart, and its commands are valid shell commands."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from tests.go_programs import BUILD_SECONDS

from uplift_server import __version__

from .chart import CHART, ROOT, render

pytestmark = pytest.mark.timeout(BUILD_SECONDS + 60)
PAGE = (ROOT / "docs/kubernetes.md").read_text(encoding="utf-8")
BLOCKS = [
    (language, re.sub(f"(?m)^{indent}", "", text))
    for indent, language, text in re.findall(r"^( *)```(\w+)\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)
]
TOKEN = "secrets.UPLIFT_METRICS_TOKEN.name=uplift,secrets.UPLIFT_METRICS_TOKEN.key=UPLIFT_METRICS_TOKEN"


@pytest.mark.parametrize("block", [text for language, text in BLOCKS if language == "yaml"])
def test_values_are_accepted(block: str, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(block, encoding="utf-8")
    objects = render("--values", CHART / "ci/minimal-values.yaml", "--values", file, "--set", TOKEN)
    settings = yaml.safe_load(block).get("settings", {})
    assert settings.items() <= objects["ConfigMap", "uplift"]["data"].items()


@pytest.mark.parametrize("block", [text for language, text in BLOCKS if language == "sh"])
def test_commands_are_valid(block: str) -> None:
    checked = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, timeout=10, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_named_objects_and_files_exist() -> None:
    names = {name for _, name in render("--values", CHART / "ci/minimal-values.yaml")}
    assert set(re.findall(r"(?:deployment|job)/(uplift-\w+)", PAGE)) <= names
    files = set(re.findall(r"\b(deploy/[\w./-]+\w)", PAGE))
    assert files
    assert all((ROOT / each).exists() for each in files)
    assert set(re.findall(r"uplift-webhooks-server:([\d.]+)", PAGE)) == {__version__}
