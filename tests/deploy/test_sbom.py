"""The software bills of materials list the installed packages and the vendored scripts."""

import hashlib
import json
import subprocess
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from uplift_server import __version__

ROOT = Path(__file__).parents[2]
VENDOR = ROOT / "server/src/uplift_server/dashboard/static/vendor"


@pytest.fixture(scope="module")
def bills(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The bills of materials by distribution."""
    written = []
    for directory in (tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")):
        subprocess.run([ROOT / "scripts/sbom", directory], check=True, capture_output=True, timeout=60)
        written.append({path.name: path.read_text(encoding="utf-8") for path in directory.iterdir()})
    assert written[0] == written[1], "the same checkout gives the same files"
    return {name.removesuffix(f"-{__version__}.cdx.json"): json.loads(text) for name, text in written[0].items()}


@pytest.mark.parametrize(("name", "extra"), [("uplift-webhooks-server", "otel"), ("uplift-webhooks", "cli")])
def test_every_installed_dependency_is_listed(bills: dict[str, Any], name: str, extra: str) -> None:
    bill = bills[name]
    listed = {each["name"]: each["version"] for each in bill["components"] if each["purl"].startswith("pkg:pypi/")}
    installed = _dependencies(name, extra)
    assert installed.items() <= listed.items()
    # All other listed packages are for other platforms.
    for each in bill["components"]:
        if each["purl"].startswith("pkg:pypi/") and each["name"] not in installed:
            assert [found["name"] for found in each["properties"]] == ["uv:package:marker"], each["name"]


def test_the_bill_describes_its_distribution(bills: dict[str, Any]) -> None:
    for name, bill in bills.items():
        assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
        assert bill["metadata"]["component"]["purl"] == f"pkg:pypi/{name}@{__version__}"
        references = [each["bom-ref"] for each in (bill["metadata"]["component"], *bill["components"])]
        assert len(set(references)) == len(references)
        assert {each["ref"] for each in bill["dependencies"]} <= set(references)


def test_vendored_scripts_are_listed(bills: dict[str, Any]) -> None:
    listed = {
        each["evidence"]["occurrences"][0]["location"].rpartition("/")[2]: each["hashes"][0]["content"]
        for each in bills["uplift-webhooks-server"]["components"]
        if each["purl"].startswith("pkg:npm/")
    }
    assert listed == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.glob("*.js")}
    assert listed


def _dependencies(name: str, extra: str) -> dict[str, str]:
    """Return the versions of all direct and indirect dependencies of a distribution with an extra, by name."""
    found: dict[str, str] = {}
    seen = set[tuple[str, str]]()
    waiting = [(name, ""), (name, extra)]
    while waiting:
        current, chosen = waiting.pop()
        if (current, chosen) in seen:
            continue
        seen.add((current, chosen))
        for text in distribution(current).requires or ():
            wanted = Requirement(text)
            if wanted.marker is None or wanted.marker.evaluate({"extra": chosen}):
                canonical = wanted.name.lower().replace("_", "-")
                found[canonical] = distribution(canonical).version
                waiting += [(canonical, each) for each in ("", *wanted.extras)]
    return found
