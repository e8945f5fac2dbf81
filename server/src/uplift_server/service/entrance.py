"""What lets people into the dashboard from outside: the addresses of links, whose tokens are made and read here."""

from dataclasses import dataclass, field

from uplift_server.core.tokens import Purpose, object_of, token


@dataclass(frozen=True, slots=True)
class Entrance:
    """Where the dashboard is, and how its links are known."""

    key: bytes = field(repr=False)
    """Of 32 bytes, derived from the server's own: tokens follow from it."""
    public_url: str
    """Without a final slash."""
    mails: bool
    """Whether links are mailed; else whoever asks for one is shown it."""

    def link_url(self, link_id: bytes) -> str:
        """Where a one-time link leads."""
        return f"{self.public_url}/enter/{token(self.key, Purpose.ENTER, link_id)}"

    def link_of(self, text: str) -> bytes | None:
        """The id of the link with this token."""
        return object_of(self.key, Purpose.ENTER, text)

    def invitation_url(self, invitation_id: bytes) -> str:
        """Where an invitation leads."""
        return f"{self.public_url}/invitations/{token(self.key, Purpose.INVITATION, invitation_id)}"

    def invitation_of(self, text: str) -> bytes | None:
        """The id of the invitation with this token."""
        return object_of(self.key, Purpose.INVITATION, text)
