"""The possible values of a missing argument or option, such as the account's endpoints, for the error message."""

import shlex
from dataclasses import dataclass
from typing import Any, Final

from uplift_webhooks.cli.kit.calls import Calls

SHOWN_MAX: Final = 10
"""Maximum number of choices in an error message. If there are more choices, the message names the command that lists
them."""


@dataclass(frozen=True, slots=True)
class Choices:
    """The objects of one type that a command's argument or option can identify, such as the account's endpoints."""

    noun: str
    path: str
    name: str
    """The field whose value identifies an object. If two objects have the same value, the error message shows IDs."""
    about: str | None = None
    """The field that describes an object to the user."""

    def sentence(self, calls: Calls) -> str:
        """Return a sentence that lists the choices, or that names the command to list them.

        Raises CliError if an API call fails.
        """
        found = list(calls.items(self.path, limit=SHOWN_MAX + 1))
        listing = calls.advice.lists.get(self.noun)
        if not found:
            return f"There are no {self.noun}s yet."
        if len(found) > SHOWN_MAX:
            return f"To list all {self.noun}s: {listing}." if listing else ""
        name = self.name if len({each[self.name] for each in found}) == len(found) else "id"
        return f"Choose one of: {', '.join(self._shown(each, name) for each in found)}."

    def _shown(self, item: dict[str, Any], name: str) -> str:
        text = shlex.quote(str(item[name]))
        return f"{text} ({item[self.about]})" if self.about else text


CHOICES: Final = {
    "ACCOUNT": Choices("account", "/v1/accounts", "name"),
    "ENDPOINT": Choices("endpoint", "/v1/endpoints", "id", "url"),
    "TYPE": Choices("event type", "/v1/event-types", "name"),
    "REPLAY": Choices("replay", "/v1/replays", "id", "state"),
}
"""The choices for each kind of argument or option. The keys are metavars, such as `ENDPOINT`."""
