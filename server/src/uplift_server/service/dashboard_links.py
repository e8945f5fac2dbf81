"""What lets people into the dashboard from outside: the addresses of links, whose tokens are made and read here."""

from dataclasses import dataclass, field

from uplift_server.core.security.tokens import (
    Purpose,
    is_valid_reset_token,
    password_mark,
    reset_token,
    token,
    verified_id,
)


@dataclass(frozen=True, slots=True)
class DashboardLinks:
    """Where the dashboard is, and how its links are known."""

    key: bytes = field(repr=False)
    """Of 32 bytes, derived from the server's own: tokens follow from it."""
    public_url: str
    """Without a final slash."""
    mails: bool
    """Whether links are mailed; else whoever asks for one is shown it."""
    has_unknown_proxy: bool = False
    """Whether requests come through a proxy that nobody told us of: a private address may be its own, then."""

    def link_url(self, link_id: bytes) -> str:
        """Where a one-time link leads."""
        return Purpose.ENTER.url(self.public_url, token(self.key, Purpose.ENTER, link_id))

    def link_of(self, text: str) -> bytes | None:
        """The id of the link with this token."""
        return verified_id(self.key, Purpose.ENTER, text)

    def invitation_url(self, invitation_id: bytes) -> str:
        """Where an invitation leads."""
        return Purpose.INVITATION.url(self.public_url, token(self.key, Purpose.INVITATION, invitation_id))

    def invitation_of(self, text: str) -> bytes | None:
        """The id of the invitation with this token."""
        return verified_id(self.key, Purpose.INVITATION, text)

    def reset_url(self, person_id: bytes, password_hash: str, ends_at: int) -> str:
        """Where a person sets a new password for a forgotten one."""
        mark = password_mark(password_hash)
        made = reset_token(self.key, person_id, expires_at=ends_at, mark=mark)
        return Purpose.RESET.url(self.public_url, made)

    def is_reset(self, text: str, password_hash: str) -> bool:
        """Whether this token resets this password."""
        return is_valid_reset_token(self.key, text, password_mark(password_hash))
