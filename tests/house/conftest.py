"""Modules of the repository, for tests of its conventions."""

import ast
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = (ROOT / "receiver/src", ROOT / "server/src")
LINES_RECOMMENDED = 400


@dataclass(frozen=True)
class Module:
    """A Python module of the two distributions."""

    name: str
    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def lines(self) -> int:
        return self.text.count("\n")

    def imports(self) -> list[tuple[int, str]]:
        """Return the line and absolute name of every imported module, including imports in functions."""
        package = self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found += [(node.lineno, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                found.append((node.lineno, ".".join([*parents, *filter(None, [node.module])])))
        return found


def _modules() -> list[Module]:
    found = []
    for source in SOURCES:
        for path in sorted(source.rglob("*.py")):
            if "versions" in path.parts:  # Migrations have the form that Alembic prescribes.
                continue
            parts = path.relative_to(source).with_suffix("").parts
            found.append(Module(".".join(parts).removesuffix(".__init__"), path))
    return found


MODULES = _modules()


@pytest.fixture
def modules() -> list[Module]:
    """Every module of the two distributions, except migrations."""
    return MODULES


@pytest.fixture
def core_modules() -> list[Module]:
    """The modules of the core."""
    return [module for module in MODULES if module.name.startswith("uplift_server.core")]


@pytest.fixture
def library_modules() -> list[Module]:
    """The modules of the receiver library."""
    return [module for module in MODULES if module.name.startswith("uplift_webhooks")]


@pytest.fixture
def root() -> Path:
    """The root of the repository."""
    return ROOT


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the modules that exceed the recommended size. Much larger ones fail a test."""
    for module in MODULES:
        if module.lines > LINES_RECOMMENDED:
            terminalreporter.write_line(f"{module.name} has {module.lines} lines; aim below {LINES_RECOMMENDED}")
