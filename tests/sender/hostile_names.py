"""A name server that sends false and invalid responses."""

import asyncio
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

from .scripted import AAAA, A, asked_for

CNAME: Final = 5


class Record(NamedTuple):
    """A record of a response: an address, a name or raw bytes. Its owner is the queried name by default."""

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
    """Sent first."""


class Families(NamedTuple):
    """Different replies for the two address families."""

    a: Reply
    aaaa: Reply


Zone = Mapping[str, Sequence[Reply | Families]]
"""The replies to a name at registration, at the next attempt, and so on. The last one is repeated."""


def found(*addresses: str) -> Reply:
    """Return records of these addresses, in this order."""
    return Reply(tuple(Record(address) for address in addresses))


def chain(*names: str, ends: Sequence[str] = ()) -> Reply:
    """Return a CNAME chain from the queried name, with addresses at the end."""
    owners = ("", *names[:-1])
    links = [Record(name, owner, CNAME) for owner, name in zip(owners, names, strict=True)]
    return Reply((*links, *(Record(address, names[-1]) for address in ends)))


SILENCE: Final = Reply(silent=True)
NO_SUCH_NAME: Final = Reply(code=3)
BROKEN: Final = Reply(code=2)


class HostileNameServer(asyncio.DatagramProtocol):
    """Responds according to `zone`. Other names do not exist."""

    def __init__(self) -> None:
        self.zone: Zone = {}
        self.turn: int | None = 0
        """The index of the reply to a name. None: the next one for each query."""
        self.asked: Counter[tuple[str, int]] = Counter()
        self.address = ""
        self.transport: asyncio.DatagramTransport

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        host, port = transport.get_extra_info("sockname")
        self.address = f"{host}:{port}"

    def datagram_received(self, data: bytes, addr: Any) -> None:
        name, kind, end = asked_for(data)
        replies = self.zone.get(name, (NO_SUCH_NAME,))
        turn = self.asked[name, kind] if self.turn is None else self.turn
        reply = replies[min(turn, len(replies) - 1)]
        self.asked[name, kind] += 1
        if isinstance(reply, Families):
            reply = reply.a if kind == A else reply.aaaa
        for each in (reply.before, reply):
            if each is not None and not each.silent:
                self.transport.sendto(each.raw or _message(each, data[:end], kind), addr)


def _message(reply: Reply, query: bytes, kind: int) -> bytes:
    answer = [text for record in reply.records if (text := _record(record, kind))]
    extra = [text for record in reply.additional if (text := _record(record, kind))]
    number = (int.from_bytes(query[:2]) + reply.id_change) % 65536
    flags = 0x8180 | reply.code | (0x0200 if reply.truncated else 0)
    head = struct.pack(">HHHHHH", number, flags, 1, len(answer), 0, len(extra))
    question = _name(reply.question) + query[-4:] if reply.question else query[12:]
    return head + question + b"".join(answer) + b"".join(extra)


def _record(record: Record, asked: int) -> bytes:
    """Encode a record. Return nothing for an address of the other family."""
    owner = _name(record.owner) if record.owner else b"\xc0\x0c"
    kind = record.kind
    if isinstance(record.value, bytes):
        kind, value = kind or asked, record.value
    elif kind == CNAME:
        value = _name(record.value)
    else:
        parsed = ip_address(record.value)
        kind, value = (A if parsed.version == 4 else AAAA), parsed.packed
        if kind != asked:
            return b""
    return owner + struct.pack(">HHIH", kind, 1, record.ttl, len(value)) + value


def _name(text: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".")) + b"\0"
