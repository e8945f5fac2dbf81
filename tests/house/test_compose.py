"""Every container of the compose file has few privileges."""

import re
from pathlib import Path

import pytest

COMPOSE = (Path(__file__).parents[2] / "deploy/compose.yaml").read_text(encoding="utf-8")
SHARED = COMPOSE.partition("x-server: &server\n")[2].partition("\nservices:\n")[0]
SERVICES = dict(re.findall(r"^  (\w+):\n((?:(?:    .*)?\n)+)", COMPOSE.partition("\nservices:\n")[2], re.MULTILINE))


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_drops_its_privileges(name: str) -> None:
    service = SERVICES[name]
    lines = (service + SHARED if "<<: *server" in service else service).splitlines()
    stripped = {line.strip() for line in lines}
    assert "cap_drop: [ALL]" in stripped
    assert 'security_opt: ["no-new-privileges:true"]' in stripped
    assert not any(line.startswith("privileged") for line in stripped)


def test_all_services_are_found() -> None:
    assert {"postgres", "mail", "migrate", "server", "worker"} <= set(SERVICES)
