"""What is wrong with a configuration: values, so that all of it can be told at once."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One thing wrong with the configuration. Holds no secret."""

    name: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        """All of it in one line."""
        return f"{self.name} {self.reason}; {self.remedy}"


class ConfigError(Exception):
    """The configuration is not usable; `problems` has everything that is wrong with it."""

    def __init__(self, *problems: ConfigProblem) -> None:
        """Keep the problems in the order in which they should be read."""
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
