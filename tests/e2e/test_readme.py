"""The README's commands for a first event work as printed, and the shell blocks of all pages are valid."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import free_port, wait_for

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text: str, *languages: str) -> list[str]:
    """Return the code blocks of a page, including those in lists."""
    found = re.findall(r"^( *)```(\w+)\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, name, code in found if name in languages]


class Terminals:
    """Runs shell blocks in one directory, with ports and a program search path of the test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.receiver_port = str(free_port())
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("UPLIFT_")}
        self._environ = {**kept, "PATH": path, "UPLIFT_PORT": str(free_port())}

    def script(self, block: str) -> str:
        """Return the block with the receiver's port and without the setup of the checkout."""
        return block.replace("5000", self.receiver_port).replace("scripts/setup --no-dev\n", "")

    def run(self, block: str) -> str:
        """Run a block to its end. Return its output."""
        done = subprocess.run(
            ["bash", "-euc", self.script(block)],
            cwd=self.directory,
            env=self._environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextlib.contextmanager
    def running(self, block: str, name: str) -> Iterator[Path]:
        """Run a block in the background. Yield the file with its output."""
        output = self.directory / f"{name}.log"
        with output.open("w") as stream:
            process = subprocess.Popen(
                ["bash", "-euc", self.script(block)],
                cwd=self.directory,
                env=self._environ,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield output
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def test_the_readme_commands_deliver_an_event(tmp_path: Path) -> None:
    section = README.partition("## Send your first event")[2].partition("\n## ")[0]
    serve, receive, send = blocks(section, "sh")
    terminals = Terminals(tmp_path)
    with terminals.running(serve, "server") as log:
        wait_for(lambda: " ready at http://" in log.read_text(), "the server is ready", within=60)
        with terminals.running(receive, "receiver") as received:
            listens = tmp_path / "receiver.py"
            wait_for(listens.exists, "the endpoint exists", within=60)
            printed = terminals.run(send)
            wait_for(
                lambda: (
                    re.findall(r"^verified (\S+)", received.read_text(), re.MULTILINE)
                    and {"webhook.created", "movement.analytics.created"}
                    <= set(re.findall(r"^verified (\S+)", received.read_text(), re.MULTILINE))
                ),
                "both events are verified",
                within=60,
            )
    assert "/enter/" in printed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shell_blocks_are_valid(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8"), "sh", "bash"):
        checked = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
        assert not checked.stderr, (page.name, block, checked.stderr)


def test_every_command_of_the_pages_exists() -> None:
    """Each `uplift-server` command line in a page names a command and options that the program has."""
    import typer

    from uplift_server.cli.main import app

    root = typer.main.get_command(app)
    seen = 0
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        lines = [line for block in blocks(text, "sh", "bash", "console") for line in block.splitlines()]
        lines += re.findall(r"`(uplift-server [^`\n]+)`", text)
        for line in lines:
            for found in re.findall(r"(?:^|[\s/(])uplift-server ((?:[a-z][a-z-]*\b ?)+)([^|>#&;)]*)", line):
                command = root
                for word in found[0].split():
                    inner = getattr(command, "commands", None)
                    if inner is None:
                        break
                    assert word in inner, (page.name, line)
                    command = inner[word]
                # A group of commands without a subcommand runs its command `list`.
                command = getattr(command, "commands", {}).get("list", command)
                options = {option for each in command.params for option in [*each.opts, *each.secondary_opts]}
                used = set(re.findall(r"(?:^|\s)(--[a-z-]+)", found[1]))
                assert used <= options | {"--help", "--version"}, (page.name, line)
                seen += 1
    assert seen > 60
