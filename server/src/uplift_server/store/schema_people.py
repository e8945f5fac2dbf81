"""The tables for people who sign in to the dashboard."""

import sqlalchemy as sa

from uplift_server.store.schema import Seq, Uuid, metadata

people = sa.Table(
    "people",
    metadata,
    sa.Column("seq", Seq, primary_key=True),
    sa.Column("id", Uuid, nullable=False, unique=True),
    sa.Column("email", sa.Text, unique=True, comment="in lower case; NULL for guests of portal links"),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("password_hash", sa.Text, comment="argon2id; NULL for sign-in with portal links only"),
    sa.Column("proved", sa.Boolean, nullable=False, comment="whether the email is verified"),
    sa.Column("created_at", sa.BigInteger, nullable=False),
)

members = sa.Table(
    "members",
    metadata,
    sa.Column("seq", Seq, primary_key=True),
    sa.Column("id", Uuid, nullable=False, unique=True),
    sa.Column("account_seq", sa.BigInteger, nullable=False),
    sa.Column("person_seq", sa.BigInteger, nullable=False),
    sa.Column("role", sa.SmallInteger, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
)
sa.Index("members_by_account", members.c.account_seq, members.c.seq)
sa.Index("members_by_person", members.c.person_seq, members.c.account_seq, unique=True)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("digest", sa.LargeBinary(32), primary_key=True, comment="SHA-256 of the cookie"),
    sa.Column("person_seq", sa.BigInteger, comment="NULL for operators"),
    sa.Column("account_seq", sa.BigInteger, comment="for portal links: the only account that it shows"),
    # After single sign-on, this column contains the digest of the settings that make the person an operator.
    sa.Column("key_digest", sa.LargeBinary(32), comment="for operators: digest of the key whose revocation ends it"),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("seen_at", sa.BigInteger, nullable=False, comment="last use, rounded to the hour"),
    sa.Column("confirmed_at", sa.BigInteger, comment="time of the last password entry"),
    sa.Column("ends_at", sa.BigInteger, nullable=False),
    sa.Column("reader_key_digest", sa.LargeBinary(32), comment="for read-only operators, instead of key_digest"),
    sa.Column("subject", sa.Text, comment="after single sign-on: ID of the person at the identity provider"),
    sa.Column("operator_name", sa.Text, comment="for operators after single sign-on"),
    sa.Column("id_token", sa.LargeBinary, comment="for sign-out at the provider; encrypted with the cookie"),
    sqlite_with_rowid=False,
)
sa.Index("sessions_by_person", sessions.c.person_seq, sessions.c.created_at)
sa.Index("sessions_by_end", sessions.c.ends_at)

links = sa.Table(
    "links",
    metadata,
    sa.Column("id", Uuid, primary_key=True),
    sa.Column("account_seq", sa.BigInteger, comment="NULL for operators"),
    sa.Column("email", sa.Text, comment="email of the person; NULL for a guest"),
    sa.Column("role", sa.SmallInteger, nullable=False, comment="role of a new member"),
    sa.Column("key_digest", sa.LargeBinary(32), comment="for operators: digest of the key that created the link"),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Column("reader_key_digest", sa.LargeBinary(32), comment="for read-only operators, instead of key_digest"),
    sqlite_with_rowid=False,
    comment="unused one-time links",
)
sa.Index("links_by_end", links.c.expires_at)

invitations = sa.Table(
    "invitations",
    metadata,
    sa.Column("seq", Seq, primary_key=True),
    sa.Column("id", Uuid, nullable=False, unique=True),
    sa.Column("account_seq", sa.BigInteger, nullable=False),
    sa.Column("email", sa.Text, nullable=False, comment="in lower case"),
    sa.Column("role", sa.SmallInteger, nullable=False),
    sa.Column("invited_by", sa.Text, nullable=False, comment="name to show to the invited person"),
    sa.Column("proves", sa.Boolean, nullable=False, comment="whether the link verifies the email"),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
)
sa.Index("invitations_by_account", invitations.c.account_seq, invitations.c.seq)
sa.Index("invitations_by_end", invitations.c.expires_at)
sa.Index("invitations_by_email", invitations.c.email, invitations.c.account_seq)

identities = sa.Table(
    "identities",
    metadata,
    sa.Column("seq", Seq, primary_key=True),
    sa.Column("issuer", sa.Text, nullable=False, comment="the identity provider"),
    sa.Column("subject", sa.Text, nullable=False, comment="ID of the person at the identity provider"),
    sa.Column("person_id", Uuid, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    comment="people who have signed in with single sign-on",
)
sa.Index("identities_by_subject", identities.c.issuer, identities.c.subject, unique=True)
sa.Index("identities_by_person", identities.c.person_id, identities.c.issuer, unique=True)

second_factors = sa.Table(
    "second_factors",
    metadata,
    sa.Column("seq", Seq, primary_key=True),
    sa.Column("person_id", Uuid, nullable=False, unique=True),
    sa.Column("totp_secret", sa.LargeBinary, nullable=False, comment="encrypted key of the authenticator app"),
    sa.Column("last_step", sa.BigInteger, nullable=False, comment="step of the last used code: no code works twice"),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    comment="second factors for sign-in with a password",
)

recovery_codes = sa.Table(
    "recovery_codes",
    metadata,
    sa.Column("digest", sa.LargeBinary(32), primary_key=True, comment="SHA-256 of the person's ID and the code"),
    sa.Column("person_id", Uuid, nullable=False),
    comment="unused codes that replace a code from the authenticator app",
    sqlite_with_rowid=False,
)
sa.Index("recovery_codes_by_person", recovery_codes.c.person_id)
