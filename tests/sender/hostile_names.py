"""A name server that sends false and invalid responses."""

import asyncio
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

from .scripted import AAAA, A, parse_query

CNAME: Final = 5


class Record(NamedTuple):
    """A DNS record: an address, a name or raw bytes. By default, its owner is the queried name."""

    value: str | bytes
    owner: str = ""
    kind: int = 0
    ttl: int = 0


class Reply(NamedTuple):
    """The response to one query."""

    records: tuple[Record, ...] = ()
    code: int = 0
    additional: tuple[Record, ...] = ()
    silent: bool = False
    truncated: bool = False
    id_change: int = 0
    question: str = ""
    raw: bytes = b""
    before: "Reply | None" = None
    """Another reply that the name server sends before this one."""


class Families(NamedTuple):
    """Different replies for the two address families."""

    a: Reply
    aaaa: Reply


Zone = Mapping[str, Sequence[Reply | Families]]
"""The replies for each name: at registration, at the next attempt, and so on. The last one is repeated."""


def found(*addresses: str) -> Reply:
    """Return a reply with these addresses, in this order."""
    return Reply(tuple(Record(address) for address in addresses))


def chain(*names: str, ends: Sequence[str] = ()) -> Reply:
    """Return a reply with a CNAME chain from the queried name to addresses."""
    owners = ("", *names[:-1])
    links = [Record(name, owner, CNAME) for owner, name in zip(owners, names, strict=True)]
    return Reply((*links, *(Record(address, names[-1]) for address in ends)))


SILENCE: Final = Reply(silent=True)
NO_SUCH_NAME: Final = Reply(code=3)
BROKEN: Final = Reply(code=2)


class HostileNameServer(asyncio.DatagramProtocol):
    """Sends the replies in `zone`. Other names do not exist."""

    def __init__(self) -> None:
        self.zone: Zone = {}
        self.reply_index: int | None = 0
        """The index of the reply that every query for a name gets. None: each query gets the next reply."""
        self.queries: Counter[tuple[str, int]] = Counter()
        self.address = ""
        self.transport: asyncio.DatagramTransport

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        host, port = transport.get_extra_info("sockname")
        self.address = f"{host}:{port}"

    def datagram_received(self, data: bytes, addr: Any) -> None:
        name, kind, end = parse_query(data)
        replies = self.zone.get(name, (NO_SUCH_NAME,))
        index = self.queries[name, kind] if self.reply_index is None else self.reply_index
        reply = replies[min(index, len(replies) - 1)]
        self.queries[name, kind] += 1
        if isinstance(reply, Families):
            reply = reply.a if kind == A else reply.aaaa
        for each in (reply.before, reply):
            if each is not None and not each.silent:
                self.transport.sendto(each.raw or _message(each, data[:end], kind), addr)


def _message(reply: Reply, query: bytes, kind: int) -> bytes:
    encoded = [text for record in reply.records if (text := _record(record, kind))]
    encoded_additional = [text for record in reply.additional if (text := _record(record, kind))]
    number = (int.from_bytes(query[:2]) + reply.id_change) % 65536
    flags = 0x8180 | reply.code | (0x0200 if reply.truncated else 0)
    head = struct.pack(">HHHHHH", number, flags, 1, len(encoded), 0, len(encoded_additional))
    question = _name(reply.question) + query[-4:] if reply.question else query[12:]
    return head + question + b"".join(encoded) + b"".join(encoded_additional)


def _record(record: Record, queries: int) -> bytes:
    """Encode a record. Return no bytes for an address of the other family."""
    owner = _name(record.owner) if record.owner else b"\xc0\x0c"
    kind = record.kind
    if isinstance(record.value, bytes):
        kind, value = kind or queries, record.value
    elif kind == CNAME:
        value = _name(record.value)
    else:
        parsed = ip_address(record.value)
        kind, value = (A if parsed.version == 4 else AAAA), parsed.packed
        if kind != queries:
            return b""
    return owner + struct.pack(">HHIH", kind, 1, record.ttl, len(value)) + value


def _name(text: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".")) + b"\0"
