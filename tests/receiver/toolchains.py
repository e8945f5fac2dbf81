"""Verifiers in other languages: programs that respond to each input line with one line.

An input line requests a verification or a signature. Its fields are base64, separated by tabs: the verifier, the
secret, the time in Unix seconds, the body, the three `webhook-` headers, and `x-uplift-signature-256`. A missing field
is `-`. The output is `true`, `false`, the signature, or `error:` and the reason.
"""

import base64
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.node_packages import installed
from tests.tools import missing, tool

CHECKOUT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "languages"
PAGE = (CHECKOUT / "docs/receiving.md").read_text(encoding="utf-8")
RUN_SECONDS = 100


@dataclass(frozen=True)
class ProgramInput:
    """An input line of a program."""

    verifier: str
    secret: str
    body: bytes
    now: int
    headers: dict[str, str] = field(default_factory=dict)

    def line(self) -> str:
        """Return the line."""
        names = ("webhook-id", "webhook-timestamp", "webhook-signature", "x-uplift-signature-256")
        texts = (self.verifier, self.secret, str(self.now), self.body, *map(self.headers.get, names))
        return "\t".join("-" if each is None else _base64(each) for each in texts)


Program = Callable[[Sequence[ProgramInput]], list[str]]


def _base64(value: str | bytes) -> str:
    return base64.b64encode(value.encode() if isinstance(value, str) else value).decode()


def program(language: str, directory: Path) -> Program:
    """Build a language's program in a directory. Skip the test if this machine cannot run it."""
    command, environ = _BUILDERS[language](directory)

    def run_inputs(inputs: Sequence[ProgramInput]) -> list[str]:
        text = "".join(f"{each.line()}\n" for each in inputs)
        return _run(command, text, **environ).splitlines()

    return run_inputs


def node_packages() -> Path:
    """Return the directory of the public npm packages. Skip the test if they are not available."""
    found = installed(PROGRAMS / "node/package-lock.json")
    if isinstance(found, str):
        missing(found)
    return found


def _run(command: Sequence[str | Path], text: str = "", cwd: Path | None = None, **environ: str) -> str:
    done = subprocess.run(
        command,
        input=text,
        cwd=cwd,
        env={**os.environ, **environ},
        capture_output=True,
        encoding="utf-8",
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


Built = tuple[list[str | Path], dict[str, str]]


def _snippet(language: str, path: Path, ending: str = "") -> Path:
    """Write the snippet of docs/receiving.md in a language to a file."""
    [text] = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text + ending, encoding="utf-8")
    return path


def _node(directory: Path) -> Built:
    snippet = _snippet("js", directory / "guide.js", "module.exports = { verify };\n")
    return [tool("node"), PROGRAMS / "node/verifiers.js", snippet], {}


def _node_with_packages(directory: Path) -> Built:
    command, _ = _node(directory)
    return command, {"NODE_PATH": str(node_packages())}


def _go(directory: Path) -> Built:
    go = tool("go")
    _snippet("go", directory / "webhook/verify.go")
    shutil.copy(PROGRAMS / "go/main.go", directory)
    (directory / "go.mod").write_text("module verifiers\n\ngo 1.19\n")
    _run(
        [go, "build", "-o", "verifiers", "."],
        cwd=directory,
        GOTOOLCHAIN="local",
        GOPROXY="off",
        GOFLAGS="",
        GOWORK="off",
    )
    return [directory / "verifiers"], {}


def _java(directory: Path) -> Built:
    compiler, java = tool("javac"), tool("java")
    snippet = _snippet("java", directory / "UpliftWebhook.java")
    _run([compiler, "-d", directory, snippet, PROGRAMS / "java/Verifiers.java"])
    return [java, "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", directory, "Verifiers"], {}


def _ruby(directory: Path) -> Built:
    return [tool("ruby"), PROGRAMS / "ruby/verifiers.rb", _snippet("ruby", directory / "guide.rb")], {}


def _php(directory: Path) -> Built:
    return [tool("php"), PROGRAMS / "php/verifiers.php", _snippet("php", directory / "guide.php")], {}


def _dotnet(directory: Path) -> Built:
    dotnet = tool("dotnet")
    _snippet("csharp", directory / "UpliftWebhook.cs")
    for source in (PROGRAMS / "dotnet").iterdir():
        shutil.copy(source, directory)
    environ = {"DOTNET_CLI_TELEMETRY_OPTOUT": "1", "DOTNET_NOLOGO": "1", "HOME": str(directory)}
    _run([dotnet, "build", "--output", directory / "built", directory / "verifiers.csproj"], **environ)
    return [dotnet, directory / "built/verifiers.dll"], environ


_BUILDERS: dict[str, Callable[[Path], Built]] = {
    "node": _node,
    "node with packages": _node_with_packages,
    "go": _go,
    "java": _java,
    "ruby": _ruby,
    "php": _php,
    "dotnet": _dotnet,
}
