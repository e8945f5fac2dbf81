"""Every container has few privileges and an image of an exact version."""

import re
from pathlib import Path

import pytest

COMPOSE = (Path(__file__).parents[2] / "deploy/compose.yaml").read_text(encoding="utf-8")
PROCESS_METRICS = COMPOSE.partition("x-server: &server\n")[2].partition("\nservices:\n")[0]
SERVICES = dict(re.findall(r"^  (\w+):\n((?:(?:    .*)?\n)+)", COMPOSE.partition("\nservices:\n")[2], re.MULTILINE))


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_drops_its_privileges(name: str) -> None:
    service = SERVICES[name]
    lines = (service + PROCESS_METRICS if "<<: *server" in service else service).splitlines()
    stripped = {line.strip() for line in lines}
    assert "cap_drop: [ALL]" in stripped
    assert 'security_opt: ["no-new-privileges:true"]' in stripped
    assert not any(line.startswith("privileged") for line in stripped)


def test_all_services_are_found() -> None:
    assert {"postgres", "mail", "migrate", "nats", "server", "worker"} <= set(SERVICES)


def test_images_have_exact_versions() -> None:
    containerfile = (Path(__file__).parents[2] / "deploy/Containerfile").read_text(encoding="utf-8")
    images = re.findall(r"(?:image: |PYTHON_IMAGE=)(docker\.io/\S+)", COMPOSE + containerfile)
    assert len(images) == 4
    for image in images:
        version = re.search(r":v?(\d+(?:\.\d+)+)", image)
        assert version, image
        # PostgreSQL versions have two parts.
        assert version[1].count(".") == (1 if "postgres" in image else 2), image
