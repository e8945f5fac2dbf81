"""Who becomes a member by a portal link or an invitation, as parts of transactions.

A person has one mail address for all accounts, so nobody may get hold of another's by it. Whether an address is proved
decides: a link that was mailed there proves it, and so does the operator's word. An account's admin who was shown an
invitation's link, since no mail is sent, proves nothing: with such a link nobody gets a password for a person who is
there already.
"""

from dataclasses import replace
from typing import NamedTuple

from uplift_server.core.people.people import GUEST_NAME
from uplift_server.store import invitations, members, people, sessions
from uplift_server.store.contract import Transaction
from uplift_server.store.errors import Conflict
from uplift_server.store.records import Invitation, Link, Member, Person


class NewIds(NamedTuple):
    """For a person and a membership that may have to be made."""

    person: bytes
    member: bytes


def portal_member(connection: Transaction, link: Link, fresh: NewIds, now: int) -> Member:
    """Whoever a portal link lets in: made a person and a member, where they are none. Raises Conflict."""
    assert link.account_seq is not None, "an operator's link is none of a portal"
    if link.email is None:
        guest = members.guest(connection, link.account_seq, link.role)
        if guest is not None:
            return guest
    person = None if link.email is None else people.find(connection, link.email)
    if person is None:
        name = link.email or GUEST_NAME
        person = _create(connection, fresh, link.email, name, password_hash=None, proved=True, now=now)
    elif not person.proved:
        # Somebody gave this mail address without showing that it is theirs. The operator's word says whose it is: a
        # password from before must not let anybody else into what is shown from now on.
        person = _renew(connection, person, password_hash=None)
    found = members.of_person(connection, link.account_seq, person.seq)
    return found or members.add(
        connection, member_id=fresh.member, account_seq=link.account_seq, person=person, role=link.role, now=now
    )


def gives_own_password(invitation: Invitation, person: Person | None) -> bool:
    """Whether an invited person must enter their own password instead of choosing one.

    A person without a password cannot accept an invitation that does not prove the email.
    """
    if person is None:
        return False
    return not invitation.proves or (person.password_hash is not None and person.proved)


def accept(
    connection: Transaction,
    invitation: Invitation,
    known: Person | None,
    fresh: NewIds,
    now: int,
    *,
    name: str,
    password_hash: str | None,
) -> Member | None:
    """Make an invited person a member; None where the invitation is used, withdrawn or over.

    `known` is the person as they were when the password was looked at, `password_hash` that of one they set now. Raises
    Conflict where the person has changed since, or is a member already, and where the account was deleted or is full.
    """
    if invitations.take(connection, invitation.id, now=now) is None:
        return None
    person = people.find(connection, invitation.email)
    if person != known:
        raise Conflict("Something about you changed at the same moment. Try again.")
    if person is None:
        person = _create(
            connection, fresh, invitation.email, name, password_hash=password_hash, proved=invitation.proves, now=now
        )
    elif password_hash is not None:
        person = _renew(connection, person, password_hash=password_hash, name=name)
    elif members.of_person(connection, invitation.account_seq, person.seq) is not None:
        raise Conflict("You are a member of this account already. Sign in.")
    return members.of_person(connection, invitation.account_seq, person.seq) or members.add(
        connection,
        member_id=fresh.member,
        account_seq=invitation.account_seq,
        person=person,
        role=invitation.role,
        now=now,
    )


def _create(
    connection: Transaction,
    fresh: NewIds,
    email: str | None,
    name: str,
    *,
    password_hash: str | None,
    proved: bool,
    now: int,
) -> Person:
    return people.create(
        connection,
        person_id=fresh.person,
        email=email,
        name=name,
        password_hash=password_hash,
        proved=proved,
        now=now,
    )


def _renew(connection: Transaction, person: Person, *, password_hash: str | None, name: str | None = None) -> Person:
    """Another password, or none, for a person whose address is proved now; whoever was signed in is so no longer."""
    renewed = replace(person, password_hash=password_hash, proved=True, name=name or person.name)
    people.update(connection, renewed)
    sessions.end_of_person(connection, person.seq)
    return renewed
