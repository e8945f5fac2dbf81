"""Code samples for receivers: they match the documentation, and work."""

import contextlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import urllib3
from tests.e2e.harness import free_port, wait_for
from tests.tools import tool

from uplift_server.dashboard.snippets import EXTRAS, FRAMEWORKS, receiver, snippet, variable_line
from uplift_webhooks.testing import make_event, sign

DOCUMENTATION = Path(__file__).parents[2] / "docs"
SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
BODY = make_event()
VERIFIERS = {"node": ("js", "function verify"), "go": ("go", "func Verify"), "java": ("java", "static boolean verify")}
"""For each program, the language of its block in docs/receiving.md, and the beginning of the shared function."""


def documents(code: str) -> list[str]:
    """Return the pages of the documentation that contain a code block."""
    pages = (page.read_text(encoding="utf-8") for page in DOCUMENTATION.glob("*.md"))
    return [text for text in pages if f"```python\n{code}```" in text]


@pytest.mark.parametrize("framework", EXTRAS)
def test_the_documentation_contains_the_code_sample(framework: str) -> None:
    assert documents(snippet(framework))


@pytest.mark.parametrize("framework", [name for name in EXTRAS if name != "python"])
def test_the_documentation_contains_the_command(framework: str) -> None:
    command = receiver(framework).command
    assert command is not None
    assert all(command in text for text in documents(snippet(framework)))


@pytest.mark.parametrize("framework", VERIFIERS)
def test_programs_contain_the_function_of_the_documentation(framework: str) -> None:
    """`test_languages.py` tests these functions against all vectors."""
    language, begin = VERIFIERS[framework]
    page = (DOCUMENTATION / "receiving.md").read_text(encoding="utf-8")
    [block] = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
    assert block[block.index(begin) :] in snippet(framework)


@pytest.mark.parametrize(
    ("url", "path", "port"),
    [
        ("https://example.com/hooks/uplift?key=secret", "/hooks/uplift", None),
        ("https://example.com:8443", "/", None),
        ("http://127.0.0.1:8080/in", "/in", "8080"),
        ("http://10.0.0.1/in", "/in", None),
        # The sample has the default path if the URL's path has a special meaning in a language or framework.
        ('https://example.com/a"b', "/webhook", None),
        ("https://example.com/<id>", "/webhook", None),
        ("https://example.com/{id}", "/webhook", None),
        ("https://example.com/ä", "/webhook", None),
    ],
)
@pytest.mark.parametrize("framework", [name for name in FRAMEWORKS if name != "python"])
def test_a_sample_has_the_path_and_port_of_the_endpoint(framework: str, url: str, path: str, port: str | None) -> None:
    shown = receiver(framework, url)
    assert f'"{path[1:] if framework == "django" else path}"' in shown.code
    assert "key=secret" not in shown.code
    text = f"{shown.code}\n{shown.command}"
    assert (port or "5000") in text
    assert ("5000" in text) == (port is None)
    assert shown.forwarded_port == ("5000" if port is None else None)


FILES = {"flask": "app.py", "fastapi": "app.py", "node": "receiver.js", "go": "receiver.go", "java": "Receiver.java"}


@pytest.mark.parametrize("framework", FILES)
def test_a_program_rejects_a_wrong_signature_and_accepts_a_valid_one(framework: str, tmp_path: Path) -> None:
    port = free_port()
    shown = receiver(framework, f"http://127.0.0.1:{port}/hooks/in.now")
    assert FILES[framework] in shown.use
    assert shown.command is not None
    (tmp_path / FILES[framework]).write_text(shown.code, encoding="utf-8")
    program, *arguments = shlex.split(shown.command)
    command = [tool(program), *arguments] if framework not in EXTRAS else [sys.executable, "-m", program, *arguments]
    environ = {
        **os.environ,
        "UPLIFT_WEBHOOK_SECRET": SECRET,
        "GOFLAGS": "",
        "GOTOOLCHAIN": "local",
        "GO111MODULE": "off",
    }
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=log, stderr=log, start_new_session=True) as process,
    ):
        try:
            url = f"http://127.0.0.1:{port}/hooks/in.now"
            wait_for(lambda: responds(url, process), f"{framework} responds", within=60)
            wrong = sign(BODY, SECRET.replace("AAEC", "AAED"))
            assert post(url, wrong) == 401
            assert post(url, {}) == 401
            assert post(url, sign(BODY, SECRET)) == 204
            assert post(url.replace("/hooks", "/other"), sign(BODY, SECRET)) == 404
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)


def responds(url: str, process: "subprocess.Popen[Any]") -> bool:
    """Return whether a program responds. Fail if it has ended."""
    assert process.poll() is None, "the program ended"
    try:
        return bool(urllib3.request("GET", url, retries=False, timeout=5).status)
    except urllib3.exceptions.HTTPError:
        return False


def post(url: str, headers: dict[str, str]) -> int:
    """Send an event; return the status code."""
    return urllib3.request("POST", url, body=BODY, headers=headers, retries=False, timeout=10).status


def test_the_secret_is_quoted_for_shells() -> None:
    assert variable_line("whsec_a/b+c=") == "export UPLIFT_WEBHOOK_SECRET=whsec_a/b+c="
    assert variable_line("a`b`'$c") == """export UPLIFT_WEBHOOK_SECRET='a`b`'"'"'$c'"""
    assert variable_line(None).startswith("export UPLIFT_WEBHOOK_SECRET=")
