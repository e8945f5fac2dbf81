"""A TypeScript client, generated from the document of a running server, compiles and works."""

import shutil
from pathlib import Path

import pytest
from tests.e2e.harness import Server
from tests.e2e.receiving import Receiver
from tests.node_packages import installed

from .conftest import check_tour, guide_program, run

PROGRAMS = Path(__file__).with_name("node")


@pytest.fixture(scope="module")
def node() -> str:
    """The path of Node.js. Without it, the tests fail, because skipped tests would prove nothing."""
    path = shutil.which("node")
    if path is None:
        pytest.fail("Node.js is not installed. Install Node.js 20 with npm.", pytrace=False)
    return path


@pytest.fixture(scope="module")
def project(node: str, document: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the packages, our programs, and the generated types in `uplift.ts`."""
    packages = installed(PROGRAMS / "package-lock.json")
    if isinstance(packages, str):
        pytest.fail(f"The packages of {PROGRAMS} are not available: {packages}", pytrace=False)
    directory = tmp_path_factory.mktemp("project")
    for path in PROGRAMS.iterdir():
        shutil.copy(path, directory)
    (directory / "node_modules").symlink_to(packages)
    run([node, "node_modules/openapi-typescript/bin/cli.js", document, "--output", "uplift.ts"], directory)
    return directory


def test_the_document_has_no_lint(node: str, project: Path, document: Path) -> None:
    assert run([node, "lint.mjs", document], project) == ""


def test_a_generated_client_does_the_tour(
    node: str, project: Path, server: Server, receiver: Receiver, document: Path
) -> None:
    (project / "guide.ts").write_text(guide_program(server, "ts"), encoding="utf-8")
    run([node, "node_modules/typescript/bin/tsc"], project)

    check_tour(lambda environ: run([node, "compiled/tour.js"], project, **environ), server, receiver, document)
    assert run([node, "compiled/guide.js"], project).startswith("ep_")
