"""The container image: labels, settings and build context."""

import re
from pathlib import Path

from uplift_server import __version__
from uplift_server.config.settings import SETTINGS
from uplift_server.config.sources import load

ROOT = Path(__file__).parents[2]
CONTAINERFILE = (ROOT / "deploy/Containerfile").read_text(encoding="utf-8")


def test_the_image_has_the_standard_labels() -> None:
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', CONTAINERFILE))
    assert labels["version"] == __version__
    assert set(labels) == {"title", "description", "version", "revision", "source", "licenses"}
    for name in ("revision", "source"):
        assert f"\nARG {name.upper()}=\n" in CONTAINERFILE
        assert labels[name] == f"${{{name.upper()}}}"


def test_secrets_can_be_files() -> None:
    """The server rejects a setting and its file together, so the image sets no variable that can be a file."""
    variables = dict(re.findall(r"\b(UPLIFT_\w+)=(\S+)", CONTAINERFILE))
    assert variables
    assert not {each.name for each in SETTINGS if each.can_be_file} & set(variables)
    config = load(variables, ROOT / "deploy/container.toml")
    assert (config.database_url, config.host) == ("sqlite:////var/lib/uplift/uplift.db", "0.0.0.0")


def test_copied_files_are_in_the_build_context() -> None:
    included = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set[str]()
    for arguments in re.findall(r"^COPY (?!--)(.+)$", CONTAINERFILE, re.MULTILINE):
        copied |= set(arguments.split()[:-1])
    assert copied == included
    assert all((ROOT / each).exists() for each in copied)
