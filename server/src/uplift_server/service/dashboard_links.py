"""URLs and tokens for links to the dashboard."""

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
    """Builds links to the dashboard, and verifies their tokens."""

    key: bytes = field(repr=False)
    """The key that signs the tokens: 32 bytes, derived from the server's secret key."""
    public_url: str
    """The URL of the dashboard, without a trailing slash."""
    sends_email: bool
    """Whether the server emails links. Otherwise, the server shows a link to the person who creates it."""
    has_unknown_proxy: bool = False
    """Whether requests may come through a proxy that is not configured.

    If so, a private address in a request may be the proxy's address.
    """

    def link_url(self, link_id: bytes) -> str:
        """Return the URL of a one-time link."""
        return Purpose.ENTER.url(self.public_url, token(self.key, Purpose.ENTER, link_id))

    def link_of(self, text: str) -> bytes | None:
        """Return the ID of the one-time link with this token, or None if the token is invalid."""
        return verified_id(self.key, Purpose.ENTER, text)

    def invitation_url(self, invitation_id: bytes) -> str:
        """Return the URL of an invitation."""
        return Purpose.INVITATION.url(self.public_url, token(self.key, Purpose.INVITATION, invitation_id))

    def invitation_of(self, text: str) -> bytes | None:
        """Return the ID of the invitation with this token, or None if the token is invalid."""
        return verified_id(self.key, Purpose.INVITATION, text)

    def reset_url(self, person_id: bytes, password_hash: str, ends_at: int) -> str:
        """Return the URL of the page where a person replaces a forgotten password."""
        mark = password_mark(password_hash)
        return Purpose.RESET.url(self.public_url, reset_token(self.key, person_id, expires_at=ends_at, mark=mark))

    def is_valid_reset_token(self, text: str, password_hash: str) -> bool:
        """Return whether this token can reset the password that has this hash."""
        return is_valid_reset_token(self.key, text, password_mark(password_hash))
