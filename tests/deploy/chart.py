"""The Helm chart and the objects that it renders."""

import subprocess
from pathlib import Path
from typing import Any

import yaml
from tests.go_programs import go_program

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/uplift-webhooks"
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))

Objects = dict[tuple[str, str], Any]
"""Kubernetes objects by kind and name."""


def helm(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run Helm."""
    command = [go_program("helm"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def render(*arguments: str | Path) -> Objects:
    """Render the chart as the release `uplift` in the namespace `hooks`."""
    rendered = helm("template", "uplift", CHART, "--namespace", "hooks", *arguments)
    assert rendered.returncode == 0, rendered.stderr
    found = [each for each in yaml.safe_load_all(rendered.stdout) if each is not None]
    objects = {(each["kind"], each["metadata"]["name"]): each for each in found}
    assert len(objects) == len(found)
    return objects


def pod_specs(objects: Objects) -> dict[str, Any]:
    """Return the specifications of Pods by the name of their Deployment or Job."""
    return {
        name: each["spec"]["template"]["spec"]
        for (kind, name), each in objects.items()
        if kind in {"Deployment", "Job"}
    }
