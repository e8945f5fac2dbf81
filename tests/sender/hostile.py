"""Attacks that try to make the server connect to forbidden addresses.

Each of `CASES` is one attack. The tests try it at registration and at an attempt. `GOOD` represents a public address,
because the tests must not leave this machine. The real policy checks every other address.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from uplift_server.core.http.addresses import AddressPolicy

from .hostile_names import BROKEN, NO_SUCH_NAME, SILENCE, Families, Record, Reply, Zone, chain, found
from .scripted import AAAA

GOOD: Final = "127.77.0.1"
"""A local address that the test policy treats as public."""
INSIDE: Final = ("127.0.0.1", "127.0.0.2", "127.255.255.254", "::1")
"""Local addresses with sockets that must never get a connection."""


class BenchPolicy(AddressPolicy):
    """The address policy of the server, which also allows GOOD."""

    __slots__ = ()

    def check(self, address: str, *, encrypted: bool) -> str | None:
        return None if address == GOOD else super().check(address, encrypted=encrypted)


BLOCKED: Final = "blocked"
LOST: Final = "lost"
"""The attempt fails without a connection, with any kind of failure."""
REACHED: Final = "reached"
"""The attempt succeeds, and connects only to GOOD."""


@dataclass(frozen=True)
class Case:
    """An attack with its expected results at registration and at an attempt."""

    name: str
    url: str
    """The URL, with `{port}` for the receiver's port."""
    registered: str | None
    """The code of the expected problem at registration, or None if registration accepts the URL."""
    sent: str
    zone: Zone = field(default_factory=dict)
    private: bool = False
    """Whether the address policy allows private networks."""

    def url_at(self, port: int) -> str:
        """Return the URL for a port of the receiver."""
        return self.url.replace("{port}", str(port))

    @property
    def dns_timeout_ms(self) -> int:
        """A short timeout if no valid response comes, otherwise one that suits a busy machine."""
        replies = [reply for replies in self.zone.values() for reply in replies if isinstance(reply, Reply)]
        return 400 if any(reply.silent or reply.raw or reply.question for reply in replies) else 5000


def _literals(reason: str, code: str, hosts: Mapping[str, str], *, private: bool = False) -> list[Case]:
    scheme = "http" if private else "https"
    return [Case(f"{reason}-{name}", f"{scheme}://{host}/", code, BLOCKED, {}, private) for name, host in hosts.items()]


_NOTATIONS: Final = {
    # Notations of 127.0.0.1 and of 169.254.169.254, the address of cloud metadata services.
    "dotted": ("127.0.0.1", "169.254.169.254"),
    "trailing-dot": ("127.0.0.1.", "169.254.169.254."),
    "three-parts": ("127.0.1", "169.254.43518"),
    "two-parts": ("127.1", "169.16689662"),
    "decimal": ("2130706433", "2852039166"),
    "decimal-trailing-dot": ("2130706433.", "2852039166."),
    "octal": ("0177.0.0.1", "0251.0376.0251.0376"),
    "octal-padded": ("00000177.0.0.1", "0000251.254.0000251.254"),
    "octal-single": ("017700000001", "025177524776"),
    "hexadecimal": ("0x7f.0x0.0x0.0x1", "0xa9.0xfe.0xa9.0xfe"),
    "hexadecimal-upper": ("0X7F.0X0.0X0.0X1", "0XA9.0XFE.0XA9.0XFE"),
    "hexadecimal-single": ("0x7f000001", "0xa9fea9fe"),
    "hexadecimal-single-upper": ("0X7F000001", "0XA9FEA9FE"),
    "hexadecimal-padded": ("0x00000000007f.1", "0x000000a9.0x00fea9fe"),
    "empty-hexadecimal-zeros": ("127.0x.0x.1", "169.254.0xa9.0xfe"),
    "mixed": ("0x7f.0.0.01", "0xa9.0376.43518"),
    "mixed-trailing-dot": ("0x7f.00.1.", "0251.254.0xa9fe."),
    "fullwidth-digits": ("\uff11\uff12\uff17.\uff10.\uff10.\uff11", "\uff11\uff16\uff19.254.169.254"),
    "circled-digits": ("\u2460\u2461\u2466.0.0.\u2460", "169.\u2461\u2464\u2463.169.254"),
    "superscript-digits": ("\u00b9\u00b2\u2077.0.0.1", "169.254.169.\u00b2\u2075\u2074"),
    "mathematical-digits": ("\U0001d7cf\U0001d7d0\U0001d7d5.0.0.1", "169.254.169.\U0001d7d0\U0001d7d3\U0001d7d2"),
    "ideographic-dots": ("127\u30020\u30020\u30021", "169\u3002254\u3002169\u3002254"),
    "fullwidth-dots": ("127\uff0e0\uff0e0\uff0e1", "169\uff0e254\uff0e169\uff0e254"),
    "halfwidth-dots": ("127\uff610\uff610\uff611", "169\uff61254\uff61169\uff61254"),
    "ideographic-trailing-dot": ("127.0.0.1\u3002", "169.254.169.254\u3002"),
    "fullwidth-hexadecimal": ("\uff10\uff58\uff17\uff46.1", "\uff10\uff38\uff21\uff19.0xfea9fe"),
    "zero-width-space": ("127.0.0\u200b.1", "169.254\u200b.169.254"),
    "soft-hyphen": ("12\u00ad7.0.0.1", "169.2\u00ad54.169.254"),
    "word-joiner": ("127.0.0.1\u2060", "169.254.169.254\u2060"),
    "variation-selector": ("127.0.0.1\ufe0f", "169.254.169.254\ufe0f"),
    "mapped": ("[::ffff:127.0.0.1]", "[::ffff:169.254.169.254]"),
    "mapped-hexadecimal": ("[::ffff:7f00:1]", "[::ffff:a9fe:a9fe]"),
    "mapped-upper": ("[::FFFF:7F00:1]", "[::FFFF:A9FE:A9FE]"),
    "mapped-in-full": ("[0:0:0:0:0:ffff:7f00:1]", "[0000:0000:0000:0000:0000:ffff:a9fe:a9fe]"),
    "compatible": ("[::127.0.0.1]", "[::169.254.169.254]"),
    "compatible-hexadecimal": ("[::7f00:1]", "[::a9fe:a9fe]"),
    "translated": ("[::ffff:0:127.0.0.1]", "[::ffff:0:a9fe:a9fe]"),
    "nat64": ("[64:ff9b::127.0.0.1]", "[64:ff9b::a9fe:a9fe]"),
    "nat64-local-96": ("[64:ff9b:1::7f00:1]", "[64:ff9b:1:1:1:1:a9fe:a9fe]"),
    "nat64-local-48": ("[64:ff9b:1:7f00:0:100:808:808]", "[64:ff9b:1:a9fe:a9:fe00:808:808]"),
    "nat64-local-56": ("[64:ff9b:1:7f:0:1:808:808]", "[64:ff9b:1:a9:fe:a9fe:808:808]"),
    "nat64-local-64": ("[64:ff9b:1:0:7f:0:108:808]", "[64:ff9b:1:0:a9:fea9:fe08:808]"),
    "6to4": ("[2002:7f00:1::1]", "[2002:a9fe:a9fe::1]"),
    "6to4-any-host": ("[2002:7f00:1:ffff:2606:4700::1111]", "[2002:a9fe:a9fe:1:2:3:4:5]"),
    "teredo-client": ("[2001:0:808:808::80ff:fffe]", "[2001:0:808:808::5601:5601]"),
    "teredo-server": ("[2001:0:7f00:1::f7f7:f7f7]", "[2001:0:a9fe:a9fe::f7f7:f7f7]"),
    "isatap": ("[2606:4700::5efe:7f00:1]", "[2606:4700::5efe:a9fe:a9fe]"),
    "isatap-universal": ("[2606:4700::200:5efe:7f00:1]", "[2606:4700::200:5efe:169.254.169.254]"),
}  # fmt: skip

_SPECIAL: Final = {
    "6to4-private": "[2002:ac10:1::1]",
    "6to4-public": "[2002:808:808::1]",
    "nat64-local-public": "[64:ff9b:1::808:808]",
    "this-host": "0.0.0.0",
    "this-host-zero": "0",
    "this-host-hexadecimal": "0x0",
    "this-host-empty-hexadecimal": "0x",
    "this-network": "0.1.2.3",
    "carrier-shared": "100.64.0.1",
    "alibaba-metadata": "100.100.100.200",
    "alibaba-metadata-decimal": "1684301000",
    "carrier-shared-last": "100.127.255.255",
    "azure-platform": "168.63.129.16",
    "azure-platform-hexadecimal": "0xa83f8110",
    "link-local": "169.254.0.1",
    "ecs-task-credentials": "169.254.170.2",
    "eks-pod-identity": "169.254.170.23",
    "tencent-metadata": "169.254.0.23",
    "oracle-classic-metadata": "192.0.0.192",
    "protocol-assignments": "192.0.0.8",
    "nat64-discovery": "192.0.0.170",
    "documentation-1": "192.0.2.1",
    "documentation-2": "198.51.100.1",
    "documentation-3": "203.0.113.1",
    "as112-direct": "192.175.48.1",
    "as112-dname": "192.31.196.1",
    "multicast-tunneling": "192.52.193.1",
    "6to4-relay": "192.88.99.1",
    "benchmarking": "198.18.0.1",
    "benchmarking-last": "198.19.255.255",
    "multicast": "224.0.0.1",
    "multicast-last": "239.255.255.255",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "broadcast-decimal": "4294967295",
    "unspecified-6": "[::]",
    "unspecified-6-in-full": "[0:0:0:0:0:0:0:0]",
    "unspecified-mapped": "[::ffff:0.0.0.0]",
    "low-compatible": "[::2]",
    "discard-only": "[100::1]",
    "dummy-prefix": "[100:0:0:1::1]",
    "below-global-unicast": "[1fff::1]",
    "above-global-unicast": "[4000::1]",
    "protocol-assignments-6": "[2001:1ff::1]",
    "port-control-anycast": "[2001:1::1]",
    "turn-anycast": "[2001:1::2]",
    "srp-anycast": "[2001:1::3]",
    "benchmarking-6": "[2001:2::1]",
    "multicast-tunneling-6": "[2001:3::1]",
    "as112-6": "[2001:4:112::1]",
    "as112-direct-6": "[2620:4f:8000::1]",
    "orchid": "[2001:10::1]",
    "orchid-2": "[2001:20::1]",
    "drone-identifiers": "[2001:30::1]",
    "documentation-6": "[2001:db8::1]",
    "documentation-6-new": "[3fff::1]",
    "6bone": "[3ffe::1]",
    "segment-routing": "[5f00::1]",
    "link-local-6": "[fe80::1]",
    "openstack-metadata-6": "[fe80::a9fe:a9fe]",
    "site-local": "[fec0::1]",
    "multicast-6": "[ff02::1]",
    "all-ones": "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]",
    "aws-metadata-6": "[fd00:ec2::254]",
    "aws-metadata-6-in-full": "[fd00:0ec2:0:0:0:0:0:0254]",
    "aws-pod-identity-6": "[fd00:ec2::23]",
    "google-metadata-6": "[fd20:ce::254]",
    "oracle-metadata-6": "[fd00:c1::a9fe:a9fe]",
    "akamai-metadata-6": "[fd00:a9fe:a9fe::1]",
    "alibaba-metadata-6": "[fd00:100::100:200]",
    "scaleway-metadata-6": "[fd00:42::42]",
}

_PRIVATE_NETWORKS: Final = {
    "rfc1918-10": "10.0.0.1",
    "rfc1918-10-decimal": "167772161",
    "rfc1918-172": "172.16.0.1",
    "rfc1918-172-last": "172.31.255.254",
    "rfc1918-192": "192.168.0.1",
    "rfc1918-192-hexadecimal": "0xc0a80001",
    "loopback-far": "127.255.255.254",
    "loopback-6": "[::1]",
    "loopback-6-in-full": "[0000:0000:0000:0000:0000:0000:0000:0001]",
    "unique-local-fc": "[fc00::1]",
    "unique-local-fd": "[fd12:3456::1]",
    "rfc1918-mapped": "[::ffff:10.0.0.1]",
    "rfc1918-nat64": "[64:ff9b::192.168.0.1]",
}

# URLs that different parsers read differently. The server parses each of them once.
_CONFUSIONS: Final = {
    "userinfo-host": ("https://good.example@127.0.0.1/", "url_userinfo"),
    "userinfo-password": ("https://good.example:443@127.0.0.1/", "url_userinfo"),
    "userinfo-empty": ("https://@127.0.0.1/", "url_userinfo"),
    "userinfo-twice": ("https://a@b@127.0.0.1/", "url_userinfo"),
    "userinfo-encoded-slash": ("https://good.example%2f@127.0.0.1/", "url_userinfo"),
    "backslash-before-at": ("https://good.example\\@127.0.0.1/", "url_invalid"),
    "backslashes-for-slashes": ("https:\\\\127.0.0.1/", "url_invalid"),
    "backslash-path": ("https://127.0.0.1\\.good.example/", "url_invalid"),
    "fragment-before-at": ("https://good.example#@127.0.0.1/", "url_fragment"),
    "fragment-empty": ("https://good.example/#", "url_fragment"),
    "query-in-authority": ("https://127.0.0.1?@good.example/", "address_not_allowed"),
    "tab-in-host": ("https://127.0.\t0.1/", "url_invalid"),
    "newline-in-host": ("https://127.0.0.1\n.good.example/", "url_invalid"),
    "carriage-return-header": ("https://good.example/\r\nHost: 127.0.0.1", "url_invalid"),
    "nul-in-host": ("https://127.0.0.1\0.good.example/", "url_invalid"),
    "leading-space": (" https://127.0.0.1/", "url_invalid"),
    "trailing-space": ("https://127.0.0.1/ ", "url_invalid"),
    "no-break-space": ("https://127.0.0.1\u00a0/", "url_invalid"),
    "next-line-control": ("https://127.0.0.1\u0085/", "url_invalid"),
    "line-separator": ("https://good.example/\u2028", "url_invalid"),
    "lone-surrogate": ("https://good.example/\ud800", "url_invalid"),
    "percent-encoded-digits": ("https://%31%32%37.0.0.1/", "url_host"),
    "percent-encoded-dot": ("https://127%2e0%2e0%2e1/", "url_host"),
    "percent-encoded-nul": ("https://127.0.0.1%00.good.example/", "url_host"),
    "percent-encoded-name": ("https://local%68ost/", "url_host"),
    "double-percent-encoding": ("https://127%252e0.0.1/", "url_host"),
    "fullwidth-percent": ("https://127\uff052e0.0.1/", "url_host"),
    "fullwidth-slash": ("https://127.0.0.1\uff0fgood.example/", "url_host"),
    "fullwidth-at": ("https://good.example\uff20127.0.0.1/", "url_host"),
    "fullwidth-hash": ("https://good.example\uff03@127.0.0.1/", "url_userinfo"),
    "fullwidth-colon": ("https://127.0.0.1\uff1a80/", "url_host"),
    "account-of-sign": ("https://127.0.0.1\u2100good.example/", "url_host"),
    "two-dot-leader": ("https://127.0\u202500.1/", "url_host"),
    "brackets-around-ipv4": ("https://[127.0.0.1]/", "url_host"),
    "brackets-around-name": ("https://[localhost]/", "url_host"),
    "brackets-empty": ("https://[]/", "url_host"),
    "brackets-unclosed": ("https://[::1/", "url_host"),
    "brackets-and-more": ("https://[::1].good.example/", "url_host"),
    "brackets-after-name": ("https://good.example[::1]/", "url_host"),
    "no-brackets": ("https://::1/", "url_host"),
    "no-brackets-mapped": ("https://::ffff:127.0.0.1/", "url_host"),
    "scope": ("https://[fe80::1%25eth0]/", "url_host"),
    "scope-raw": ("https://[fe80::1%eth0]/", "url_host"),
    "scope-loopback": ("https://[::1%25lo]/", "url_host"),
    "scope-numeric": ("https://[fe80::1%251]/", "url_host"),
    "future-literal": ("https://[v1.127.0.0.1]/", "url_host"),
    "mapped-octal-part": ("https://[::ffff:0177.0.0.1]/", "url_host"),
    "mapped-hexadecimal-part": ("https://[::ffff:0x7f.0.0.1]/", "url_host"),
    "mapped-short": ("https://[::ffff:127.1]/", "url_host"),
    "five-parts": ("https://127.0.0.1.1/", "url_host"),
    "part-too-large": ("https://127.0.0.257/", "url_host"),
    "wraps-around": ("https://4294967296/", "url_host"),
    "wraps-around-to-loopback": ("https://6425673729/", "url_host"),
    "part-wraps-around": ("https://383.0.0.1/", "url_host"),
    "digits-no-octal": ("https://0178.0.0.1/", "url_host"),
    "number-of-thousands-of-digits": ("https://" + "0" * 1900 + "177.1/", "url_host"),
    "minus-sign": ("https://-127.0.0.1/", "url_host"),
    "plus-sign": ("https://+127.0.0.1/", "url_host"),
    "name-before-number": ("https://good.example.127/", "url_host"),
    "arabic-digits": ("https://\u0661\u0662\u0667.\u0660.\u0660.\u0661/", "url_host"),
    "empty-labels": ("https://127..0..1/", "url_host"),
    "two-trailing-dots": ("https://127.0.0.1../", "url_host"),
    "port-zero": ("https://good.example:0/", "url_port"),
    "port-too-large": ("https://good.example:65536/", "url_port"),
    "port-wraps-around": ("https://good.example:65558/", "url_port"),
    "port-negative": ("https://good.example:-22/", "url_port"),
    "port-twice": ("https://good.example:443:22/", "url_host"),
    "port-at-host": ("https://good.example:127.0.0.1/", "url_port"),
    "port-arabic": ("https://good.example:\u0662\u0662/", "url_port"),
    "no-host": ("https:///127.0.0.1/", "url_host"),
    "one-slash": ("https:/127.0.0.1/", "url_invalid"),
    "no-scheme": ("//127.0.0.1/", "url_invalid"),
    "scheme-file": ("file:///etc/passwd", "url_scheme"),
    "scheme-gopher": ("gopher://127.0.0.1:6379/_x", "url_scheme"),
    "scheme-dict": ("dict://127.0.0.1:11211/", "url_scheme"),
    "scheme-nested": ("url:https://127.0.0.1/", "url_scheme"),
    "scheme-jar": ("jar:https://127.0.0.1!/", "url_scheme"),
    "scheme-unix": ("http+unix://%2fvar%2frun%2fdocker.sock/", "url_scheme"),
    "scheme-websocket": ("wss://127.0.0.1/", "url_scheme"),
    "plain-http": ("http://good.example/", "https_required"),
    "plain-http-metadata": ("http://169.254.169.254/latest/meta-data/", "https_required"),
}  # fmt: skip

_DEFAULT_URL: Final = "https://hooks.example:{port}/"


def _named(name: str, registered: str | None, sent: str, *replies: Reply | Families, url: str = _DEFAULT_URL) -> Case:
    """Return an attack in which the name server gives these replies for the host in `url`."""
    host = url.split("/")[2].split(":", maxsplit=1)[0].rstrip(".").lower()
    return Case(f"dns-{name}", url, registered, sent, {host: replies})


_NOT_ALLOWED: Final = "address_not_allowed"
_FIRST_GOOD_THEN: Final = {
    "loopback": "127.0.0.2",
    "own-address": "127.0.0.1",
    "loopback-6": "::1",
    "metadata": "169.254.169.254",
    "metadata-6": "fd00:ec2::254",
    "private": "10.0.0.1",
    "unique-local": "fd12::1",
    "unspecified": "0.0.0.0",
    "unspecified-6": "::",
    "mapped": "::ffff:127.0.0.2",
    "mapped-metadata": "::ffff:169.254.169.254",
    "mapped-public": f"::ffff:{GOOD}",
    "compatible": "::127.0.0.2",
    "nat64": "64:ff9b::7f00:2",
    "nat64-local": "64:ff9b:1::7f00:2",
    "6to4": "2002:7f00:2::1",
    "teredo": "2001:0:7f00:2::f7f7:f7f7",
    "isatap": "2606:4700::5efe:7f00:2",
    "broadcast": "255.255.255.255",
    "multicast": "224.0.0.251",
    "multicast-6": "ff02::fb",
    "link-local-6": "fe80::1",
    "carrier-shared": "100.100.100.200",
    "azure-platform": "168.63.129.16",
}
_BEFORE_INSIDE: Final = {
    "no-such-name": NO_SUCH_NAME,
    "server-failure": BROKEN,
    "refused": Reply(code=5),
    "format-error": Reply(code=1),
    "not-implemented": Reply(code=4),
    "silence": SILENCE,
    "no-addresses": Reply(),
}

_DNS: Final = [
    *(_named(f"rebinding-to-{name}", None, BLOCKED, found(GOOD), found(to)) for name, to in _FIRST_GOOD_THEN.items()),
    *(_named(f"inside-after-{name}", None, BLOCKED, no, found("127.0.0.2")) for name, no in _BEFORE_INSIDE.items()),
    _named("outside-after-inside", _NOT_ALLOWED, REACHED, found("127.0.0.2"), found(GOOD)),
    _named("vanished-after-registration", None, LOST, found(GOOD), NO_SUCH_NAME),
    _named("mixed-outside-first", None, REACHED, found(GOOD, "127.0.0.2")),
    _named("mixed-inside-first", None, REACHED, found("127.0.0.2", GOOD)),
    _named("mixed-outside-between", None, REACHED, found("127.0.0.1", GOOD, "127.0.0.2")),
    _named("mixed-metadata-first", None, REACHED, found("169.254.169.254", GOOD)),
    _named("mixed-private-first", None, REACHED, found("10.0.0.1", "192.168.0.1", GOOD)),
    _named("mixed-then-inside-alone", None, BLOCKED, found(GOOD, "127.0.0.2"), found("127.0.0.2")),
    _named("inside-then-mixed", _NOT_ALLOWED, REACHED, found("127.0.0.2"), found("127.0.0.2", GOOD)),
    _named("every-address-inside", _NOT_ALLOWED, BLOCKED, found("127.0.0.1", "127.0.0.2", "127.255.255.254")),
    _named("duplicate-inside", _NOT_ALLOWED, BLOCKED, found("127.0.0.2", "127.0.0.2")),
    _named("sixty-inside-one-outside", None, REACHED, found(*(f"127.0.1.{n}" for n in range(60)), GOOD)),
    _named("sixty-inside", _NOT_ALLOWED, BLOCKED, found(*(f"127.0.1.{n}" for n in range(60)))),
    _named("outside-and-inside-6", None, REACHED, found(GOOD, "::1")),
    _named("outside-and-metadata-6", None, REACHED, found("fd00:ec2::254", GOOD)),
    _named("outside-and-mapped-inside", None, REACHED, found(GOOD, "::ffff:127.0.0.2")),
    _named("inside-in-both-families", _NOT_ALLOWED, BLOCKED, found("127.0.0.2", "::1")),
    _named("inside-6-alone", _NOT_ALLOWED, BLOCKED, found("::1")),
    _named("metadata-6-alone", _NOT_ALLOWED, BLOCKED, found("fd20:ce::254")),
    _named("inside-and-failure-6", _NOT_ALLOWED, BLOCKED, Families(found("127.0.0.2"), BROKEN)),
    _named("outside-and-failure-6", None, REACHED, Families(found(GOOD), BROKEN)),
    _named("failure-and-inside-6", _NOT_ALLOWED, BLOCKED, Families(BROKEN, found("::1"))),
    _named("no-such-name-and-inside-6", _NOT_ALLOWED, BLOCKED, Families(NO_SUCH_NAME, found("::1"))),
    _named("outside-then-inside-6", None, BLOCKED, found(GOOD), Families(Reply(), found("::1"))),
    _named("alias-of-inside", _NOT_ALLOWED, BLOCKED, chain("inside.example", ends=["127.0.0.2"])),
    _named("alias-of-localhost", _NOT_ALLOWED, BLOCKED, chain("localhost", ends=["127.0.0.1"])),
    _named("alias-of-metadata-name", _NOT_ALLOWED, BLOCKED,
           chain("metadata.google.internal", ends=["169.254.169.254"])),
    _named("alias-of-mixed", None, REACHED, chain("mixed.example", ends=["127.0.0.2", GOOD])),
    _named("alias-becomes-inside", None, BLOCKED, chain("a.example", ends=[GOOD]), chain("a.example", ends=["::1"])),
    _named("alias-of-literal-name", None, LOST, chain("127.0.0.2")),
    _named("alias-without-address", None, LOST, chain("a.example", "b.example", "c.example")),
    _named("alias-loop", None, LOST, chain("a.example", "hooks.example")),
    _named("alias-of-itself", None, LOST, chain("hooks.example")),
    _named("chain-of-ten-to-inside", _NOT_ALLOWED, BLOCKED,
           chain(*(f"n{n}.example" for n in range(10)), ends=["127.0.0.2"])),
    _named("address-of-another-name", _NOT_ALLOWED, BLOCKED, Reply((Record("127.0.0.2", "other.example"),))),
    _named("own-and-another-names-address", None, REACHED, Reply((Record("127.0.0.2", "other.example"), Record(GOOD)))),
    _named("address-only-in-additional", None, LOST, Reply(additional=(Record("127.0.0.2"),))),
    _named("inside-in-additional", None, REACHED, Reply((Record(GOOD),), additional=(Record("127.0.0.2"),))),
    _named("forged-id-first", _NOT_ALLOWED, BLOCKED,
           found("127.0.0.2")._replace(before=found(GOOD)._replace(id_change=1))),
    _named("forged-question-first", _NOT_ALLOWED, BLOCKED,
           found("127.0.0.2")._replace(before=found(GOOD)._replace(question="x.example"))),
    _named("response-to-another-question", None, LOST, found("127.0.0.2")._replace(question="x.example")),
    _named("truncated", None, LOST, found("127.0.0.2")._replace(truncated=True)),
    _named("garbage", None, LOST, Reply(raw=b"\xff" * 40)),
    _named("empty-datagram", None, LOST, Reply(raw=b"\0")),
    _named("address-of-three-bytes", None, LOST, Reply((Record(b"\x7f\0\0"),))),
    _named("address-of-five-bytes", _NOT_ALLOWED, BLOCKED, Reply((Record(b"\x7f\0\0\x02\0"),))),
    _named("address-without-bytes", None, LOST, Reply((Record(b""),))),
    _named("family-swapped", _NOT_ALLOWED, BLOCKED, Families(Reply((Record(bytes(15) + b"\1", kind=AAAA),)), Reply())),
    _named("long-lived-outside", None, REACHED, Reply((Record(GOOD, ttl=2**31 - 1),)), found("127.0.0.2")),
    _named("trailing-dot", _NOT_ALLOWED, BLOCKED, found("127.0.0.2"), url="https://hooks.example.:{port}/"),
    _named("upper-case", _NOT_ALLOWED, BLOCKED, found("127.0.0.2"), url="https://HOOKS.EXAMPLE:{port}/"),
    _named("address-in-labels", _NOT_ALLOWED, BLOCKED, found("127.0.0.1"), url="https://127.0.0.1.nip.example:{port}/"),
    _named("address-in-dashes", _NOT_ALLOWED, BLOCKED,
           found("127.0.0.1"), url="https://127-0-0-1.sslip.example:{port}/"),
    _named("hexadecimal-name", _NOT_ALLOWED, BLOCKED, found("127.0.0.1"), url="https://0x7f.0x1.example:{port}/"),
    _named("leading-zero-name", _NOT_ALLOWED, BLOCKED, found("127.0.0.1"), url="https://0177.example:{port}/"),
    _named("underscore-name", _NOT_ALLOWED, BLOCKED, found("::1"), url="https://_http._tcp.example:{port}/"),
    _named("google-metadata", _NOT_ALLOWED, BLOCKED,
           found("169.254.169.254"), url="https://metadata.google.internal:{port}/"),
    _named("amazon-metadata", _NOT_ALLOWED, BLOCKED,
           found("169.254.169.254"), url="https://instance-data.ec2.internal:{port}/"),
    _named("tencent-metadata", _NOT_ALLOWED, BLOCKED,
           found("169.254.0.23"), url="https://metadata.tencentyun.example:{port}/"),
    _named("kubernetes", _NOT_ALLOWED, BLOCKED,
           found("10.96.0.1"), url="https://kubernetes.default.svc.cluster.local:{port}/"),
    _named("docker-host", _NOT_ALLOWED, BLOCKED, found("172.17.0.1"), url="https://host.docker.internal:{port}/"),
    _named("home-router", _NOT_ALLOWED, BLOCKED, found("192.168.1.1"), url="https://fritz.box:{port}/"),
    _named("single-label", _NOT_ALLOWED, BLOCKED, found("127.0.0.2"), url="https://router:{port}/"),
    _named("single-label-outside", _NOT_ALLOWED, REACHED, found(GOOD), url="https://router:{port}/"),
    _named("localhost-resolves-outside", _NOT_ALLOWED, BLOCKED, found(GOOD), url="https://localhost:{port}/"),
    _named("below-localhost-resolves-outside", _NOT_ALLOWED, BLOCKED, found(GOOD), url="https://a.b.localhost:{port}/"),
    _named("localhost-with-a-dot", _NOT_ALLOWED, BLOCKED, found(GOOD), url="https://LOCALHOST.:{port}/"),
    Case("dns-international-name", "https://b\u00fccher.example:{port}/", _NOT_ALLOWED, BLOCKED,
         {"xn--bcher-kva.example": (found("127.0.0.2"),)}),
    Case("dns-fullwidth-localhost", "https://\uff4c\uff4f\uff43\uff41\uff4chost:{port}/", _NOT_ALLOWED, BLOCKED),
    Case("dns-kelvin-sign-name", "https://hoo\u212as.example:{port}/", _NOT_ALLOWED, BLOCKED,
         {"hooks.example": (found("127.0.0.2"),)}),
    Case("dns-soft-hyphen-localhost", "https://local\u00adhost:{port}/", _NOT_ALLOWED, BLOCKED),
    Case("dns-ideographic-dot", "https://a\u3002localhost:{port}/", _NOT_ALLOWED, BLOCKED),
]  # fmt: skip

_PRIVATE_ALLOWED: Final = [
    Case(f"open-rebinding-to-{name}", "http://hooks.example:{port}/", None, BLOCKED,
         {"hooks.example": (found(GOOD), found(to))}, private=True)
    for name, to in {
        "metadata": "169.254.169.254",
        "metadata-6": "fd00:ec2::254",
        "mapped-metadata": "::ffff:169.254.169.254",
        "nat64-metadata": "64:ff9b::a9fe:a9fe",
        "link-local-6": "fe80::1",
        "unspecified": "0.0.0.0",
        "unspecified-6": "::",
        "multicast": "224.0.0.1",
        "carrier-shared": "100.100.100.200",
        "azure-platform": "168.63.129.16",
        "public-without-tls": "8.8.8.8",
        "public-without-tls-6": "2606:4700:4700::1111",
    }.items()
] + [
    Case("open-mixed-metadata-first", "http://hooks.example:{port}/", None, REACHED,
         {"hooks.example": (found("169.254.169.254", GOOD),)}, private=True),
    Case("open-mixed-public-first", "http://hooks.example:{port}/", None, REACHED,
         {"hooks.example": (found("8.8.8.8", GOOD),)}, private=True),
    Case("open-metadata-name", "http://metadata:{port}/", _NOT_ALLOWED, BLOCKED,
         {"metadata": (found("169.254.169.254"),)}, private=True),
    Case("open-unresolved-then-public", "http://hooks.example:{port}/", "https_required", BLOCKED,
         {"hooks.example": (NO_SUCH_NAME, found("8.8.8.8"))}, private=True),
]  # fmt: skip

CASES: Final[list[Case]] = [
    *_literals("loopback", _NOT_ALLOWED, {name: hosts[0] for name, hosts in _NOTATIONS.items()}),
    *_literals("metadata", _NOT_ALLOWED, {name: hosts[1] for name, hosts in _NOTATIONS.items()}),
    *_literals("open-metadata", _NOT_ALLOWED, {name: hosts[1] for name, hosts in _NOTATIONS.items()}, private=True),
    *_literals("special", _NOT_ALLOWED, _SPECIAL),
    *_literals("open-special", _NOT_ALLOWED, _SPECIAL, private=True),
    *_literals("private", _NOT_ALLOWED, _PRIVATE_NETWORKS),
    *(Case(f"confusion-{name}", url, code, LOST) for name, (url, code) in _CONFUSIONS.items()),
    *_DNS,
    *_PRIVATE_ALLOWED,
]
