"""Import rules: the allowed imports between packages, and the packages that may import each library."""

import subprocess
import sys
from pathlib import Path
from typing import Any

# With these modules, the result of a function depends on more than its arguments.
IMPURE = {"time", "random", "asyncio", "socket", "os", "logging", "threading", "secrets"}

PACKAGES_OF = {
    "fastapi": (
        "uplift_server.api",
        "uplift_server.dashboard",
        "uplift_server.config",
        "uplift_webhooks.frameworks.fastapi",
    ),
    "flask": ("uplift_webhooks.frameworks.flask",),
    "django": ("uplift_webhooks.frameworks.django",),
    "pydantic": ("uplift_server.api", "uplift_server.dashboard", "uplift_server.config"),
    "sqlalchemy": ("uplift_server.store",),
    "alembic": ("uplift_server.store",),
    "sqlite3": ("uplift_server.store", "uplift_webhooks.deduplication"),
    "aiosmtplib": ("uplift_server.mail",),
    "joserfc": ("uplift_server.service",),
    "segno": ("uplift_server.dashboard",),
    "jinja2": ("uplift_server.mail", "uplift_server.dashboard", "uplift_server.api.documentation"),
    "markdown_it": ("uplift_server.api.documentation",),
    "pygments": ("uplift_server.api.documentation",),
}


def test_import_contracts_hold(root: Path) -> None:
    checked = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        check=False,
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_core_imports_only_itself_and_pure_standard_modules(core_modules: Any) -> None:
    wrong = [
        f"{module.name}, line {line}: {name}"
        for module in core_modules
        for line, name in module.imports()
        if not name.startswith("uplift_server.core")
        and (name.partition(".")[0] in IMPURE or name.partition(".")[0] not in sys.stdlib_module_names)
    ]
    assert not wrong


def test_each_library_stays_in_its_packages(modules: Any) -> None:
    wrong = [
        f"{module.name}, line {line}: {name} belongs in {', '.join(packages)}"
        for module in modules
        for line, name in module.imports()
        if (packages := PACKAGES_OF.get(name.partition(".")[0]))
        and not any(module.name == package or module.name.startswith(f"{package}.") for package in packages)
    ]
    assert not wrong


# Packages that integrators provide, or install as an extra.
EXTRAS = {
    "uplift_webhooks.frameworks.fastapi": {"fastapi"},
    "uplift_webhooks.frameworks.flask": {"flask"},
    "uplift_webhooks.frameworks.django": {"asgiref", "django"},
    "uplift_webhooks.testing.plugin": {"pytest"},
}


def test_the_receiver_library_imports_only_itself_and_the_standard_library(library_modules: Any) -> None:
    def allowed(module: Any) -> set[str]:
        extras = EXTRAS.get(module.name, set())
        if _belongs_to_command(module.name):
            extras = {"typer", "rich", "websockets", "tomli"}
        return {*sys.stdlib_module_names, "uplift_webhooks", *extras}

    wrong = [
        f"{module.name}, line {line}: {name}"
        for module in library_modules
        for line, name in module.imports()
        if name.partition(".")[0] not in allowed(module)
    ]
    assert not wrong


def test_the_receiver_library_does_not_need_its_command(library_modules: Any) -> None:
    wrong = [
        f"{module.name}, line {line}: {name}"
        for module in library_modules
        if not _belongs_to_command(module.name)
        for line, name in module.imports()
        if _belongs_to_command(name)
    ]
    assert not wrong


def _belongs_to_command(name: str) -> bool:
    """Whether a module belongs to the command `uplift`, whose packages are an extra."""
    return name == "uplift_webhooks.cli" or name.startswith("uplift_webhooks.cli.")
