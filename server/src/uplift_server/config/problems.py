"""Configuration problems as values, so that the program can show all of them together."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """A configuration problem. Contains no secret."""

    name: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        """Return the problem in one line."""
        return f"{self.name} {self.reason}; {self.remedy}"


class ConfigError(Exception):
    """Error of an invalid configuration. `problems` contains all problems."""

    def __init__(self, *problems: ConfigProblem) -> None:
        """Keep the problems in display order."""
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
