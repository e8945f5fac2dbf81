"""Configuration problems as data, so that commands can show all problems together."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """A problem with a setting, and how to fix the problem. The texts contain no secrets."""

    name: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name} {self.reason}; {self.remedy}"


class ConfigError(Exception):
    """The configuration is not valid. `problems` contains all problems."""

    def __init__(self, *problems: ConfigProblem) -> None:
        """Create the error. `problems` are in the order in which commands show them."""
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
