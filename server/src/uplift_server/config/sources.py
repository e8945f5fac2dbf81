"""Sources of settings: the environment overrides `uplift.toml`, which overrides the defaults.

For a secret, or a URL that can contain a password, the environment can name a file that contains the value:
`UPLIFT_OPERATOR_KEY_FILE=/run/secrets/operator-key`.

The server does not start if the name of a setting is unknown or a value is not valid. The error lists all problems.
"""

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from uplift_server.config.parsers import (
    POSTGRESQL,
    InvalidValue,
    published_addresses,
    schedule,
    without_password,
)
from uplift_server.config.problems import ConfigError, ConfigProblem
from uplift_server.config.settings import (
    BY_KEY,
    BY_NAME,
    OTHER_TOOLS,
    OTLP_VARIABLES,
    PREFIX,
    SETTINGS,
    Config,
    Setting,
    Value,
)
from uplift_server.core.durations import format_duration
from uplift_server.core.limits import ENDPOINT_TIMEOUT_MS_MAX, ENDPOINT_TIMEOUT_MS_MIN

FILE_NAME: Final = "uplift.toml"
SYSTEM_FILE: Final = Path("/etc/uplift") / FILE_NAME
"""The settings file that applies if the working directory has none."""
_SECRET_FILES: Final = {f"{setting.name}_FILE": setting for setting in SETTINGS if setting.can_be_file}
LEASE_MARGIN_MS: Final = 15_000
"""Default number of ms by which the lease exceeds the attempt timeout.

In this time, the server can settle a full batch of attempts on a slow disk.
"""
LEASE_MARGIN_MS_MIN: Final = 5_000
"""Minimum number of ms by which the lease must exceed the attempt timeout.

The server must settle an attempt before the lease expires.
"""
CONNECT_TIMEOUT_MS: Final = 5_000
VALUE_CHARACTERS_MAX: Final = 4096


def find_file(directory: Path, system: Path = SYSTEM_FILE) -> Path | None:
    """Return the path of the settings file: `uplift.toml` in a directory, or else the system's settings file.

    Return None if neither file exists.
    """
    return next((path for path in (directory / FILE_NAME, system) if _is_present(path)), None)


def _is_present(path: Path) -> bool:
    try:
        path.stat()
    except PermissionError:
        # `load` reports that the file cannot be read. If a command ignored the file, it could use another database.
        return True
    except OSError:
        return False
    return path.is_file()


def load(environ: Mapping[str, str], file: Path | None = None, *, terminal: bool = False) -> Config:
    """Return the configuration from an environment and an optional file.

    `terminal` says whether standard error is a terminal. Raises ConfigError, which contains all problems.
    """
    problems: list[ConfigProblem] = []
    given = _from_file(file, problems) if file is not None else {}
    for name in sorted(environ):
        if name in BY_NAME:
            given[name] = ("environment", environ[name])
        elif name in _SECRET_FILES:
            setting = _SECRET_FILES[name]
            if setting.name in environ:
                problems.append(
                    ConfigProblem(name, f"is set in addition to {setting.name}", "remove one of these settings")
                )
            elif (text := _secret(name, environ[name], problems)) is not None:
                given[setting.name] = (f"the file of {name}", text)
        elif name.startswith(PREFIX) and name not in OTHER_TOOLS:
            problems.append(_unknown(name, name, [*BY_NAME, *_SECRET_FILES]))
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        source, text = given.get(setting.name, ("default", setting.default))
        try:
            values[setting.attribute] = _parse(setting, text)
        except InvalidValue as wrong:
            where = "" if source == "environment" else f" (in {source})"
            problems.append(ConfigProblem(setting.name + where, wrong.reason, wrong.remedy))
    if not problems:
        _derive(values, terminal)
        problems.extend(_contradictions(values))
    if problems:
        raise ConfigError(*problems)
    given |= {name: ("environment", environ[name]) for name in OTLP_VARIABLES if environ.get(name)}
    return Config(**values, given=given)


def _parse(setting: Setting, text: str | None) -> Value:
    if text is None or (text == "" and setting.default is None):
        return None
    if len(text) > VALUE_CHARACTERS_MAX:
        raise InvalidValue(f"has more than {VALUE_CHARACTERS_MAX} characters", "shorten the value")
    if not text.isprintable():
        raise InvalidValue("has unprintable characters, such as line breaks", "remove the unprintable characters")
    if text == "" and setting.parse not in (schedule, published_addresses):
        raise InvalidValue("is empty", f"set a value, or remove the setting to use its default {setting.default}")
    return setting.parse(text)


def _derive(values: dict[str, Any], terminal: bool) -> None:
    """Set the defaults that depend on other settings or on the terminal."""
    if values["public_url"] is None:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(values["host"], values["host"])  # noqa: S104 - compared only
        values["public_url"] = f"http://{f'[{host}]' if ':' in host else host}:{values['port']}"
    if values["connect_timeout_ms"] is None:
        values["connect_timeout_ms"] = min(CONNECT_TIMEOUT_MS, values["attempt_timeout_ms"])
    if values["endpoint_timeout_max_ms"] is None:
        values["endpoint_timeout_max_ms"] = _endpoint_timeout_limit(values["lease_ms"])
    if values["lease_ms"] is None:
        longest = max(values["attempt_timeout_ms"], values["endpoint_timeout_max_ms"])
        values["lease_ms"] = longest + LEASE_MARGIN_MS
    if values["log_format"] is None:
        values["log_format"] = "console" if terminal else "json"


def _endpoint_timeout_limit(lease_ms: int | None) -> int:
    """Return the longest timeout that endpoints can set, so that each attempt ends within its lease."""
    if lease_ms is None:
        return ENDPOINT_TIMEOUT_MS_MAX
    return max(ENDPOINT_TIMEOUT_MS_MIN, min(ENDPOINT_TIMEOUT_MS_MAX, lease_ms - LEASE_MARGIN_MS_MIN))


def _contradictions(values: Mapping[str, Any]) -> Iterator[ConfigProblem]:
    """Yield a problem for each contradiction between settings."""
    if values["connect_timeout_ms"] > values["attempt_timeout_ms"]:
        yield ConfigProblem(
            "UPLIFT_CONNECT_TIMEOUT", "is longer than UPLIFT_ATTEMPT_TIMEOUT, which includes the time to connect",
            "shorten UPLIFT_CONNECT_TIMEOUT, or increase UPLIFT_ATTEMPT_TIMEOUT",
        )  # fmt: skip
    if values["lease_ms"] < values["attempt_timeout_ms"] + LEASE_MARGIN_MS_MIN:
        yield ConfigProblem(
            "UPLIFT_LEASE", "can expire during an attempt, so the server could send a delivery twice",
            "make UPLIFT_LEASE at least 5s longer than UPLIFT_ATTEMPT_TIMEOUT, or remove UPLIFT_LEASE",
        )  # fmt: skip
    if values["endpoint_timeout_max_ms"] > _endpoint_timeout_limit(values["lease_ms"]):
        yield ConfigProblem(
            "UPLIFT_ENDPOINT_TIMEOUT_MAX", "is too long for UPLIFT_LEASE, which can expire during an attempt",
            "make UPLIFT_ENDPOINT_TIMEOUT_MAX at least 5s shorter than UPLIFT_LEASE, or remove "
            "UPLIFT_ENDPOINT_TIMEOUT_MAX",
        )  # fmt: skip
    if values["disable_after_ms"] <= values["warn_after_ms"]:
        yield ConfigProblem(
            "UPLIFT_DISABLE_AFTER", "is not longer than UPLIFT_WARN_AFTER, so no time remains after the warning",
            "make UPLIFT_DISABLE_AFTER longer than UPLIFT_WARN_AFTER; both start at the first failure",
        )  # fmt: skip
    if values["nats_url"] is not None and not values["database_url"].startswith(POSTGRESQL):
        yield ConfigProblem(
            "UPLIFT_NATS_URL", "is set, but the database is SQLite",
            "use a PostgreSQL database, or remove UPLIFT_NATS_URL",
        )  # fmt: skip
    if values["nats_credentials_file"] is not None and values["nats_url"] is None:
        yield ConfigProblem(
            "UPLIFT_NATS_CREDENTIALS_FILE", "is set, but UPLIFT_NATS_URL is not",
            "set UPLIFT_NATS_URL, or remove UPLIFT_NATS_CREDENTIALS_FILE",
        )  # fmt: skip
    yield from _oidc_contradictions(values)
    if values["smtp_url"] is not None and values["mail_from"] is None:
        yield ConfigProblem(
            "UPLIFT_MAIL_FROM", "is missing, but UPLIFT_SMTP_URL is set",
            "set the sender address, or remove UPLIFT_SMTP_URL to disable email",
        )  # fmt: skip


def _oidc_contradictions(values: Mapping[str, Any]) -> Iterator[ConfigProblem]:
    """Yield a problem for each contradiction between single sign-on settings."""
    if values["oidc_issuer"] is None:
        for name in ("client_id", "client_secret", "operator_group", "read_only_group"):
            if values[f"oidc_{name}"] is not None:
                found = f"UPLIFT_OIDC_{name.upper()}"
                reason = "is set, but UPLIFT_OIDC_ISSUER is not"
                yield ConfigProblem(found, reason, f"set UPLIFT_OIDC_ISSUER, or remove {found}")
        return
    for name in ("client_id", "client_secret"):
        if values[f"oidc_{name}"] is None:
            yield ConfigProblem(
                f"UPLIFT_OIDC_{name.upper()}", "is missing, but UPLIFT_OIDC_ISSUER is set",
                "copy the value from the identity provider, or remove UPLIFT_OIDC_ISSUER to turn single sign-on off",
            )  # fmt: skip
    if values["oidc_read_only_group"] is not None and values["oidc_read_only_group"] == values["oidc_operator_group"]:
        yield ConfigProblem(
            "UPLIFT_OIDC_READ_ONLY_GROUP", "is the same group as UPLIFT_OIDC_OPERATOR_GROUP",
            "use another group, or remove one of these settings",
        )  # fmt: skip


def _from_file(path: Path, problems: list[ConfigProblem]) -> dict[str, tuple[str, str]]:
    """Return the settings in a file, and add problems with the file to `problems`.

    The keys are the names of the settings. Each value is a pair: the path of the file, and the setting's value as text.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        # TOML and UTF-8 errors are ValueErrors. Neither message contains a value from the file.
        reason = error.strerror if isinstance(error, OSError) else str(error)
        problems.append(ConfigProblem(str(path), f"cannot be read: {reason}", "correct the file, or use another file"))
        return {}
    except RecursionError:
        problems.append(ConfigProblem(str(path), "is nested too deeply", "use one `name = value` per line"))
        return {}
    given: dict[str, tuple[str, str]] = {}
    for key, value in content.items():
        setting = BY_KEY.get(key)
        if setting is None:
            problems.append(_unknown(f"`{key}` in {path}", key, BY_KEY))
            continue
        text = _text(value)
        if text is None:
            remedy = "use a string in quotes, a whole number, true, false or a list of strings"
            problems.append(ConfigProblem(f"{setting.name} (in {path})", "has a value of the wrong type", remedy))
        else:
            given[setting.name] = (str(path), text)
    return given


def _secret(name: str, file: str, problems: list[ConfigProblem]) -> str | None:
    """Return the secret in a file, without the line break at its end.

    If the file has no valid secret, add a problem to `problems` and return None.
    """
    if not file:
        problems.append(ConfigProblem(name, "is empty", "set the path of a file, or remove the setting"))
        return None
    try:
        with Path(file).open(encoding="utf-8") as opened:
            text = opened.read(VALUE_CHARACTERS_MAX + 2).removesuffix("\n").removesuffix("\r")
    except (OSError, ValueError) as error:
        # Do not show an encoding error, because its text contains the secret.
        if isinstance(error, OSError):
            reason, remedy = f"cannot be read: {error.strerror}", "correct the path, or the permissions of the file"
        else:
            reason, remedy = "is not UTF-8", "write the value into the file as text, or correct the path"
    else:
        if text:
            return text
        # Without the secret, the server would start with a default, such as a new secret key.
        reason, remedy = "is empty", "write the value into the file, or correct the path"
    problems.append(ConfigProblem(name, f"is {file}, which {reason}", remedy))
    return None


def _text(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    if isinstance(value, list) and all(isinstance(item, str) and "," not in item for item in value):
        return ",".join(value)
    return None


def _unknown(shown: str, wanted: str, known: Iterable[str]) -> ConfigProblem:
    """Return the problem for an unknown setting. The fix suggests the setting with the most similar name.

    The comparison ignores the prefix of the names.
    """
    bare = {name.removeprefix(PREFIX).lower(): name for name in known}
    nearest = difflib.get_close_matches(wanted.lower().removeprefix(PREFIX.lower()), bare, n=1)
    remedy = "remove the setting; `uplift-server config` lists all settings"
    if nearest:
        remedy = f"did you mean {bare[nearest[0]]}? Correct or remove the setting"
    return ConfigProblem(shown, "is not a setting of this version", remedy)


@dataclass(frozen=True, slots=True)
class DescribedSetting:
    """The value and the source of a setting, for display. Secrets are masked."""

    setting: Setting
    value: str
    source: str


def describe(config: Config) -> list[DescribedSetting]:
    """Return all settings for display, in the same order as the settings table."""
    return [_described(config, setting) for setting in SETTINGS]


def _described(config: Config, setting: Setting) -> DescribedSetting:
    source, text = config.given.get(setting.name, ("default", setting.default))
    if text is None:
        value = getattr(config, setting.attribute)
        if setting.attribute in ("public_url", "log_format"):
            text = value
        elif value is None:
            text = f"none ({setting.derived})" if setting.derived else "none"
        else:
            text = format_duration(value)
    elif setting.secret and text:
        text = "•" * 8
    elif setting.is_url_with_password:
        text = without_password(text)
    return DescribedSetting(setting, text, source)
