"""Add members through portal links and invitations, within transactions.

A person has one email for all accounts, so a link must not give one person access as another. A link proves the email
if it was emailed, or if the operator created it. Without email, an admin sees the links of invitations. Such a link
does not prove the email, so it cannot set the password of an existing person.
"""

from dataclasses import replace
from typing import NamedTuple

from uplift_server.core.people.people import GUEST_NAME
from uplift_server.store import accounts, invitations, members, people, sessions
from uplift_server.store.contract import Transaction
from uplift_server.store.errors import Conflict
from uplift_server.store.records import Invitation, Link, Member, Person


class NewIds(NamedTuple):
    """IDs for a person and a member, in case they must be created."""

    person: bytes
    member: bytes


def join_by_link(connection: Transaction, link: Link, new_ids: NewIds, now: int) -> Member:
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
        # The email was registered without verification. The operator's link verifies it, so an earlier password becomes
        # invalid.
        person = _renew(connection, person, password_hash=None)
    found = members.find_by_person(connection, link.account_seq, person.seq)
    return found or members.add(
        connection, member_id=new_ids.member, account_seq=link.account_seq, person=person, role=link.role, now=now
    )


def must_enter_password(invitation: Invitation, person: Person | None) -> bool:
    """Whether an invited person must enter their own password instead of choosing one.

    A person without a password cannot accept an invitation that does not prove the email.
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
) -> Member | None:
    """Add an invited person as a member. Return None if the invitation was used, was withdrawn or has expired.

    `known` is the person as of the password check, and `password_hash` is the hash of a new password. Raises Conflict
    if the person has changed since then or is already a member, or if the account was deleted or is full.
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
        person = _renew(connection, person, password_hash=password_hash, name=name)
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


def _renew(connection: Transaction, person: Person, *, password_hash: str | None, name: str | None = None) -> Person:
    """Set or remove the password of a person whose email is now proved, and end their sessions."""
    renewed = replace(person, password_hash=password_hash, proved=True, name=name or person.name)
    people.update(connection, renewed)
    sessions.end_all_of_person(connection, person.seq)
    return renewed
