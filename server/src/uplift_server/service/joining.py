"""Adds members through portal links, invitations and single sign-on, within transactions.

A person has one email for all accounts, so a link must not let one person act as another person. A link proves that the
person who opens it owns the email if the server emailed the link, or if the operator created the link. If the server
does not send email, an admin sees the invitation links. Such a link does not prove that the person owns the email, so
it cannot set the password of an existing person. On the first sign-in with an identity provider, the server accepts the
email if the provider has verified it. On later sign-ins, the server identifies the person by the ID at the provider.
Therefore, a person who changes the email at the provider does not get access as another person.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from uplift_server.core.people.people import GUEST_NAME
from uplift_server.core.security.id_tokens import Identity
from uplift_server.service.person_audit import audit_person
from uplift_server.store import accounts, identities, invitations, members, people, second_factors, sessions
from uplift_server.store.contract import Transaction
from uplift_server.store.errors import Conflict
from uplift_server.store.records import Invitation, Link, Member, Person

NOT_A_MEMBER: Final = "the person is not a member of any account"
"""Why the server rejects the sign-in of a person without access, for the log."""
_EMAIL_NOT_VERIFIED: Final = (
    "The identity provider has not verified your email address, or does not share it. Verify the address there and sign"
    " in again, or ask the operator to check the server log."
)
_NO_MEMBERSHIP: Final = (
    "No account has {email} as a member. Ask an admin of your account to invite this address, then sign in again."
)
_OTHER_IDENTITY: Final = (
    "Your email address belongs to a person with another identity at the identity provider. Sign in with your password"
    " or a link from the operator, select Unlink identity under Your profile, then sign in again."
)


class NewIds(NamedTuple):
    """The IDs of a person and a member that a transaction may create."""

    person: bytes
    member: bytes


class NoAccess(Conflict):
    """A person cannot sign in with single sign-on.

    The text is for the person. `cause` is for the log, and contains no personal data.
    """

    def __init__(self, text: str, cause: str) -> None:
        super().__init__(text)
        self.cause = cause


class LinkedPerson(NamedTuple):
    """A person whom `join_by_identity` found or created."""

    person: Person
    is_new: bool
    """Whether this is the person's first sign-in with single sign-on."""


def join_by_link(connection: Transaction, link: Link, new_ids: NewIds, now: int, address: str | None) -> Member:
    """Return the member for a portal link. Create the person and the member if needed. Raises Conflict."""
    assert link.account_seq is not None, "a portal link has an account"
    if link.email is None:
        guest = members.find_guest(connection, link.account_seq, link.role)
        if guest is not None:
            return guest
    person = None if link.email is None else people.find(connection, link.email, lock=True)
    if person is None:
        name = link.email or GUEST_NAME
        person = _create(connection, new_ids, link.email, name, password_hash=None, proved=True, now=now)
    elif not person.proved:
        person = _renew(connection, person, "portal link", now, address, password_hash=None)
    found = members.find_by_person(connection, link.account_seq, person.seq)
    return found or members.add(
        connection, member_id=new_ids.member, account_seq=link.account_seq, person=person, role=link.role, now=now
    )


def must_enter_password(invitation: Invitation, person: Person | None) -> bool:
    """Return whether an invited person must enter an existing password instead of choosing one.

    If the invitation does not prove that the person owns the email, return True even for an existing person without a
    password. This person cannot accept the invitation.
    """
    if person is None:
        return False
    return not invitation.proves or (person.password_hash is not None and person.proved)


def join_by_invitation(
    connection: Transaction,
    invitation: Invitation,
    known: Person | None,
    new_ids: NewIds,
    now: int,
    *,
    name: str,
    password_hash: str | None,
    address: str | None,
) -> Member | None:
    """Add an invited person as a member. Return None if the invitation was used, was withdrawn or has expired.

    `known` is the person's record from before the transaction, or None for a new person. `password_hash` is the hash of
    a new password, or None if the person entered the existing password. Raises Conflict if the person's record has
    changed, if a person who entered the existing password is already a member, or if the account was deleted or is
    full.
    """
    accounts.lock(connection, invitation.account_seq)
    if invitations.consume(connection, invitation.id, now=now) is None:
        return None
    person = people.find(connection, invitation.email, lock=True)
    if person != known:
        raise Conflict("Another request changed your user data. Try again.")
    if person is None:
        person = _create(
            connection, new_ids, invitation.email, name, password_hash=password_hash, proved=invitation.proves, now=now
        )
    elif password_hash is not None:
        person = _renew(connection, person, "invitation", now, address, password_hash=password_hash, name=name)
    elif members.find_by_person(connection, invitation.account_seq, person.seq) is not None:
        raise Conflict("You are already a member of this account. Sign in.")
    return members.find_by_person(connection, invitation.account_seq, person.seq) or members.add(
        connection,
        member_id=new_ids.member,
        account_seq=invitation.account_seq,
        person=person,
        role=invitation.role,
        now=now,
    )


def join_by_identity(
    connection: Transaction,
    identity: Identity,
    open_ones: Sequence[Invitation],
    new_ids: NewIds,
    now: int,
    address: str | None,
) -> LinkedPerson:
    """Return the person with this identity. On the first sign-in, link the identity to an existing or a new person.

    `open_ones` are the open invitations to the person's email. The caller must have locked the accounts of these
    invitations. Raises NoAccess if the provider has not verified the email, or if the person has another identity. Also
    raises NoAccess if neither a person nor an invitation has the email.
    """
    email = identity.email
    by_email = None if email is None else people.find(connection, email, lock=True)
    person = identities.find_person(connection, identity.issuer, identity.subject)
    if person is not None:
        return LinkedPerson(person, is_new=False)
    if email is None:
        cause = "the ID token has no email address (email), or the address is not verified (email_verified)"
        raise NoAccess(_EMAIL_NOT_VERIFIED, cause)
    person = by_email
    if person is None:
        if not open_ones:
            raise NoAccess(_NO_MEMBERSHIP.format(email=email), NOT_A_MEMBER)
        person = _create(connection, new_ids, email, identity.name, password_hash=None, proved=True, now=now)
    elif identities.is_linked(connection, identity.issuer, person):
        raise NoAccess(_OTHER_IDENTITY, "the person is linked to another identity")
    elif not person.proved:
        person = _renew(connection, person, "single sign-on", now, address, password_hash=None)
    identities.link(connection, identity.issuer, identity.subject, person, now=now)
    return LinkedPerson(person, is_new=True)


def accept_invitations(
    connection: Transaction,
    person: Person,
    open_ones: Sequence[Invitation],
    new_member_ids: Sequence[bytes],
    now: int,
) -> list[Member]:
    """Add a person with a verified email to the accounts that invited the person. Skip full accounts.

    Return the new members. The caller must have locked the accounts. `new_member_ids` contains one ID for each
    invitation.
    """
    joined = []
    for invitation, member_id in zip(open_ones, new_member_ids, strict=True):
        if members.find_by_person(connection, invitation.account_seq, person.seq) is None:
            try:
                joined.append(
                    members.add(
                        connection,
                        member_id=member_id,
                        account_seq=invitation.account_seq,
                        person=person,
                        role=invitation.role,
                        now=now,
                    )
                )
            except Conflict:
                continue
        invitations.consume(connection, invitation.id, now=now)
    return joined


def _create(
    connection: Transaction,
    new_ids: NewIds,
    email: str | None,
    name: str,
    *,
    password_hash: str | None,
    proved: bool,
    now: int,
) -> Person:
    return people.create(
        connection,
        person_id=new_ids.person,
        email=email,
        name=name,
        password_hash=password_hash,
        proved=proved,
        now=now,
    )


def _renew(
    connection: Transaction,
    person: Person,
    by: str,
    now: int,
    address: str | None,
    *,
    password_hash: str | None,
    name: str | None = None,
) -> Person:
    """Mark a person's email as verified, and set or remove the password.

    Also delete the second factor and end all sessions, because another person could have set the password and the
    second factor before the verification. Add entries to the audit logs of all the person's accounts. `by` is the way
    to join, such as `portal link`.
    """
    renewed = replace(person, password_hash=password_hash, proved=True, name=name or person.name)
    changes: list[tuple[str, Mapping[str, object]]] = []
    if second_factors.delete(connection, person.id):
        changes.append(("member.second_factor_turned_off", {"by": by}))
    if renewed.password_hash != person.password_hash:
        changes.append(("member.password_changed", {"by": by}))
    if renewed.name != person.name:
        changes.append(("member.renamed", {"from": person.name, "to": renewed.name}))
    people.update(connection, renewed)
    sessions.end_all_of_person(connection, person.seq)
    for action, details in changes:
        audit_person(connection, renewed, action, details, now, address)
    return renewed
