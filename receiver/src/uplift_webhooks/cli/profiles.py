"""Finds a command's server URL and API key: in its options, in the environment, or in the user's profiles."""

import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from uplift_webhooks.api import KEY_VARIABLE, URL_VARIABLE
from uplift_webhooks.api.connections import without_version
from uplift_webhooks.cli.kit.errors import CliError, ExitCode

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROFILE_VARIABLE: Final = "UPLIFT_PROFILE"
DEFAULT_PROFILE: Final = "default"
_NAMES: Final = ("api_url", "api_key")


@dataclass(frozen=True)
class Access:
    """A server's URL and the API key for it, with their sources."""

    api_url: str
    api_key: str = field(repr=False)
    warning: str = ""
    """A security problem with the source of the key, or an empty string."""
    url_origin: str = "--api-url"
    """The source of the URL, such as an option or a variable."""
    key_origin: str = "--api-key"


@dataclass(frozen=True)
class Asked:
    """The values of a command's options, or None for omitted options."""

    api_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    profile: str | None = None


def config_file(environ: Mapping[str, str]) -> Path:
    """Return the path of the file that contains the user's profiles."""
    home = environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "uplift" / "config.toml"


def find_access(asked: Asked, environ: Mapping[str, str] = os.environ, *, keyless: bool = False) -> Access:
    """Find the server's URL and the API key in options, `--profile`, the environment or another profile, in this order.

    The other profile is the one that UPLIFT_PROFILE names, or the default profile. `keyless`: a key is not required.
    Raises CliError. Messages never contain a key.
    """
    file = config_file(environ)
    set_there = {"api_url": environ.get(URL_VARIABLE, "").strip(), "api_key": environ.get(KEY_VARIABLE, "").strip()}
    named = asked.profile or environ.get(PROFILE_VARIABLE, "").strip()
    given = {"api_url": asked.api_url or "", "api_key": asked.api_key or ""}
    # Read the file only if it is needed, because it may be invalid.
    enough = all(given[name] or (set_there[name] and not asked.profile) for name in _NAMES)
    profile = {} if enough else _profile(file, named)
    layers = [given, profile, set_there] if asked.profile else [given, set_there, profile]
    url = next((layer for layer in layers if layer.get("api_url")), {})
    key = next((layer for layer in layers if layer.get("api_key")), {})

    def origin(layer: dict[str, str], name: str, option: str, variable: str) -> str:
        if layer is profile:
            return f"{name} of the profile {named or DEFAULT_PROFILE!r}"
        return variable if layer is set_there else option

    if not url:
        remedy = f"set {URL_VARIABLE} to the server's URL, use --api-url, or add a profile to {file}"
        raise CliError("the server's URL is not set", remedy, ExitCode.USAGE)
    address, url_origin = without_version(url["api_url"]), origin(url, "api_url", "--api-url", URL_VARIABLE)
    if not key:
        if keyless:
            return Access(address, "", url_origin=url_origin)
        raise CliError(
            "the API key is not set",
            f"set {KEY_VARIABLE} to a key of your account (sk_…), use --api-key, or add the key to {file}",
            ExitCode.NOT_ALLOWED,
        )
    if key is profile and profile.get("api_url") and without_version(profile["api_url"]) != address:
        # Never send an API key to a server that did not create the key.
        raise CliError(
            f"the key of the profile {named or DEFAULT_PROFILE!r} is for {profile['api_url']}, not {url['api_url']}",
            f"set the key with --api-key or {KEY_VARIABLE}",
            ExitCode.USAGE,
        )
    warning = _warning(file) if key is profile else ""
    return Access(address, key["api_key"], warning, url_origin, origin(key, "api_key", "--api-key", KEY_VARIABLE))


def _profile(file: Path, name: str) -> dict[str, str]:
    """Return the profile with this name.

    If the name is empty, return the default profile, or an empty profile if there is none.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        if name:
            raise CliError(f"there is no profile {name!r}", f"add the profile to {file}", ExitCode.USAGE) from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        cause = f"cannot read {file}: {getattr(error, 'strerror', None) or 'the file is not UTF-8'}"
        remedy = "give your user read access to the file, and save the file as UTF-8"
        raise CliError(cause, remedy, ExitCode.USAGE) from error
    try:
        profiles: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CliError(f"{file} is not valid TOML: {error}", "correct the file", ExitCode.USAGE) from error
    found = profiles.get(name or DEFAULT_PROFILE)
    if found is None and not name:
        return {}
    if not isinstance(found, dict):
        there = ", ".join(key for key, value in profiles.items() if isinstance(value, dict))
        remedy = f"use one of: {there}" if there else f"add the profile to {file}"
        raise CliError(f"there is no profile {name or DEFAULT_PROFILE!r}", remedy, ExitCode.USAGE)
    unknown = sorted(set(found) - set(_NAMES))
    wrong = unknown or sorted(key for key in found if not isinstance(found[key], str))
    if wrong:
        problem = "is not a setting" if unknown else "is not a string"
        cause = f"{wrong[0]} in the profile {name or DEFAULT_PROFILE!r} of {file} {problem}"
        raise CliError(cause, 'use only api_url = "…" and api_key = "…"', ExitCode.USAGE)
    return {key: value.strip() for key, value in found.items()}


def _warning(file: Path) -> str:
    if os.name != "posix" or not file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return ""
    return f"other users can read the API key in {file}. Run: chmod 600 {file}"
