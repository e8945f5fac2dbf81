"""Settings of the server: names, sources and validation."""

from uplift_server.config.problems import ConfigError, ConfigProblem
from uplift_server.config.secret_key import check_database, check_rescued, publish_key, secret_key
from uplift_server.config.settings import OTHER_TOOLS, SETTINGS, Config, Setting
from uplift_server.config.sources import FILE_NAME, DescribedSetting, describe, find_file, load

__all__ = [
    "SETTINGS",
    "Setting",
    "Config",
    "load",
    "find_file",
    "describe",
    "DescribedSetting",
    "secret_key",
    "publish_key",
    "check_database",
    "check_rescued",
    "ConfigError",
    "ConfigProblem",
    "FILE_NAME",
    "OTHER_TOOLS",
]
