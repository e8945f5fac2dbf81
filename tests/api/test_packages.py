"""The package index: its pages, its files, and installations of the library with pip and uv."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from tests.e2e.harness import serving

import uplift_server
from uplift_server.api.routes import packages

ROOT = Path(__file__).parents[2]
INDEX = "/packages/simple/"
PROJECT = "/packages/simple/uplift-webhooks/"
FILE = f"uplift_webhooks-{uplift_server.__version__}-py3-none-any.whl"
JSON = "application/vnd.pypi.simple.v1+json"
# The headers of pip 25 and uv 0.9.
ACCEPTED_BY_PIP = f"{JSON}, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01"


@pytest.fixture(scope="module", autouse=True)
def _require_wheel() -> None:
    if not any(each.is_file() for each in packages.PLACES):
        pytest.fail(f"{FILE} is not built. Run scripts/setup", pytrace=False)


def test_the_index_lists_the_library_as_html(server: Any) -> None:
    response = server.client(None).get(INDEX)

    assert (response.status, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert re.findall(r'<a href="([^"]+)">([^<]+)</a>', response.body.decode()) == [
        ("uplift-webhooks/", "uplift-webhooks")
    ]


def test_the_project_page_leads_to_a_wheel_with_the_published_digest(server: Any) -> None:
    client = server.client(None)
    page = client.get(PROJECT)
    [(link, digest, python, name)] = re.findall(
        r'<a href="([^"#]+)#sha256=([0-9a-f]{64})" data-requires-python="([^"]+)">([^<]+)</a>', page.body.decode()
    )
    wheel = client.get(urljoin(PROJECT, link))

    assert (name, python) == (FILE, "&gt;=3.10")
    assert link.endswith(f"/{FILE}")
    assert (wheel.status, wheel.headers["content-type"]) == (200, "application/zip")
    assert hashlib.sha256(wheel.body).hexdigest() == digest
    assert "immutable" in wheel.headers["cache-control"]


def test_the_index_responds_with_json_to_clients_that_accept_it(server: Any) -> None:
    client = server.client(None)
    index, project = (client.get(each, accept=ACCEPTED_BY_PIP) for each in (INDEX, PROJECT))
    [file] = project.json["files"]

    assert {each.headers["content-type"] for each in (index, project)} == {JSON}
    assert index.json == {"meta": {"api-version": "1.0"}, "projects": [{"name": "uplift-webhooks"}]}
    assert (project.json["name"], file["filename"], file["requires-python"]) == ("uplift-webhooks", FILE, ">=3.10")
    assert hashlib.sha256(client.get(urljoin(PROJECT, file["url"])).body).hexdigest() == file["hashes"]["sha256"]
    assert {client.get(each).headers["vary"] for each in (INDEX, PROJECT)} == {"accept"}


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/packages/simple", INDEX),
        ("/packages/simple/uplift-webhooks", PROJECT),
        ("/packages/simple/Uplift_Webhooks", PROJECT),
        ("/packages/simple/Uplift__.Webhooks/", PROJECT),
    ],
)
def test_other_spellings_redirect_to_the_normalized_address(server: Any, path: str, target: str) -> None:
    response = server.client(None).get(path)

    assert response.status == 308
    assert urljoin(path, response.headers["location"]) == target


@pytest.mark.parametrize(
    "path",
    [
        "/packages",
        "/packages/",
        "/packages/simple/flask",
        "/packages/simple/flask/",
        "/packages/simple/uplift-webhooks-server/",
        f"/packages/files/0000000000000000/{FILE}",
        "/packages/files/x/..%2F..%2Fetc%2Fpasswd",
    ],
)
def test_other_addresses_are_not_found(server: Any, path: str) -> None:
    assert server.client(None).get(path).status == 404


def test_a_checkout_without_the_wheel_names_the_script_that_builds_it(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "PLACES", ())
    packages.library_wheel.cache_clear()

    response = server.client(None).get(PROJECT)

    assert response.status == 404
    assert b"scripts/setup" in response.body


def test_responses_are_cacheable_and_support_head(server: Any) -> None:
    client = server.client(None)
    [link] = re.findall(r'href="([^"#]+)#', client.get(PROJECT).body.decode())
    for address in (INDEX, PROJECT, urljoin(PROJECT, link)):
        first = client.get(address)
        head = client.call("HEAD", address)
        again = client.get(address, if_none_match=first.headers["etag"])

        assert "max-age=" in first.headers["cache-control"]
        assert (head.status, head.body) == (200, b"")
        assert {**head.headers, "date": ""} == {**first.headers, "date": ""}
        assert (again.status, again.body) == (304, b"")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a server process, and return the URL of its index."""
    with serving(tmp_path_factory.mktemp("packages") / "data") as running:
        yield f"{running.url}{INDEX}"


def run(*command: str | Path) -> None:
    """Run a program without the PIP, UV and PYTHON variables of this environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_", "PYTHON"))}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def check_installed(python: str | Path, *path: Path) -> None:
    """Import the library outside of the checkout, and compare its version."""
    program = "import sys; sys.path[:0] = sys.argv[1:]; import uplift_webhooks as w; print(w.__file__, w.__version__)"
    ran = subprocess.run([python, "-I", "-c", program, *path], capture_output=True, text=True, check=True)
    file, version = ran.stdout.split()
    assert not Path(file).is_relative_to(ROOT / "receiver")
    assert version == uplift_server.__version__


def test_pip_installs_the_library(url: str, tmp_path: Path) -> None:
    # The interpreter that created this environment has pip, because scripts/setup needs it.
    python = Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
    run(
        *(python, "-I", "-m", "pip", "--isolated", "install", "--no-deps", "--no-cache-dir", "--target", tmp_path),
        *("--index-url", url, "uplift-webhooks[flask]"),
    )
    check_installed(python, tmp_path)


def test_uv_installs_the_library(url: str, tmp_path: Path) -> None:
    uv = next(iter(ROOT.glob(".tools/uv-*/bin/uv")), None) or shutil.which("uv")
    assert uv is not None, "uv is missing. Run scripts/setup"
    run(uv, "venv", "--no-config", "--python", sys.executable, tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    run(
        *(uv, "pip", "install", "--no-config", "--no-cache", "--no-deps", "--python", python),
        *("--default-index", url, "uplift-webhooks[flask]"),
    )
    check_installed(python)
