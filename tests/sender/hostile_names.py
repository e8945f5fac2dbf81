"""A name server that lies in every way it can."""

import asyncio
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

from .scripted import AAAA, A, asked_for

CNAME: Final = 5


class Record(NamedTuple):
    """A record of an answer: an address, a name or raw bytes, of the name asked for unless there is an owner."""

    value: str | bytes
    owner: str = ""
    kind: int = 0
    ttl: int = 0


class Reply(NamedTuple):
    """What is sent for one question."""

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
    """Different replies for the two families."""

    a: Reply
    aaaa: Reply


Zone = Mapping[str, Sequence[Reply | Families]]
"""A name's reply at registration, at the attempt after it, and so on; the last one stays."""


def found(*addresses: str) -> Reply:
    """Records of these addresses, in this order."""
    return Reply(tuple(Record(address) for address in addresses))


def chain(*names: str, ends: Sequence[str] = ()) -> Reply:
    """A CNAME from the name asked for to each next one, and addresses at the end."""
    owners = ("", *names[:-1])
    links = [Record(name, owner, CNAME) for owner, name in zip(owners, names, strict=True)]
    return Reply((*links, *(Record(address, names[-1]) for address in ends)))


SILENCE: Final = Reply(silent=True)
NO_SUCH_NAME: Final = Reply(code=3)
BROKEN: Final = Reply(code=2)


class HostileNameServer(asyncio.DatagramProtocol):
    """Answers as `zone` says; names it does not know do not exist."""

    def __init__(self) -> None:
        self.zone: Zone = {}
        self.turn: int | None = 0
        """Which of a name's replies is given; None: another one for every question."""
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
    """A record on the wire; nothing for an address of the other family."""
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
