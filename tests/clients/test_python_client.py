"""A Python client, generated from the document of a running server, passes mypy and works."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from openapi_spec_validator import validate
from tests.e2e.harness import Server
from tests.e2e.receiving import Receiver

from .conftest import check_tour, guide_program, run

TOUR = Path(__file__).with_name("tour.py")


@pytest.fixture(scope="module")
def project(document: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with our program, and the generated package `uplift_client`."""
    directory = tmp_path_factory.mktemp("project")
    shutil.copy(TOUR, directory)
    # The generator would format the package with any ruff that it finds.
    (directory / "config.yml").write_text("post_hooks: []\n")
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--path", document, "--meta", "none"]
    run([*command, "--output-path", "uplift_client", "--config", "config.yml", "--fail-on-warning"], directory)
    return directory


def test_the_document_is_valid(document: Path) -> None:
    validate(json.loads(document.read_bytes()))


def test_a_generated_client_does_the_tour(project: Path, server: Server, receiver: Receiver, document: Path) -> None:
    (project / "guide.py").write_text(guide_program(server, "python"), encoding="utf-8")
    run([sys.executable, "-m", "mypy", "--strict", "--cache-dir=/dev/null", "tour.py", "guide.py"], project)

    saw = check_tour(lambda environ: run([sys.executable, "tour.py"], project, **environ), server, receiver, document)
    assert saw["athlete"] == "Mara"
    assert run([sys.executable, "guide.py"], project).startswith("ep_")
