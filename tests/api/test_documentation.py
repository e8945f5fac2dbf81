"""The documentation as browsers get it from a server: whole, connected, and in need of nothing from elsewhere."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag

import pytest

from uplift_server.api.documentation.documents import ADDRESSES, FILES, SHELVES
from uplift_server.api.documentation.markdown import article
from uplift_server.api.problems import STATUS

ROOT = Path(__file__).parents[2]
ELSEWHERE = {"www.standardwebhooks.com", "www.npmjs.com", "github.com"}
"""Hosts that documents may name in links; nothing is loaded from them."""
VOID = {"meta", "link", "br", "wbr"}


class Html(HTMLParser):
    """A page's links, anchors, tags and text; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: list[str] = []
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An opening tag."""
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "href":
                self.links.append(value or "")
            elif name == "id":
                self.anchors.append(value or "")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """A closing tag."""
        assert self._open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        """Text."""
        self.words.append(data)


def fetched(server: Any, address: str) -> Html:
    """A page without a key."""
    answer = server.client(None).get(address)
    assert answer.status == 200, address
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return Html(answer.body.decode())


@pytest.fixture(scope="module")
def site(server: Any) -> dict[str, Html]:
    """Every page that can be reached from /docs by links, by address."""
    found: dict[str, Html] = {}
    waiting = ["/docs"]
    while waiting:
        address = waiting.pop()
        found[address] = fetched(server, address)
        reached = {urldefrag(link).url for link in found[address].links if link.startswith("/docs")}
        pages = {each for each in reached if "." not in each}
        waiting += sorted(pages - found.keys() - set(waiting))
    return found


def links(site: dict[str, Html]) -> Iterator[tuple[str, str, str]]:
    """Every link: the page it stands on, where it leads, and the anchor there."""
    for address, page in site.items():
        for link in page.links:
            target, anchor = urldefrag(link)
            yield address, target or address, anchor


def test_every_document_is_reached_from_the_guide(site: dict[str, Html]) -> None:
    assert set(site) == {each for each in ADDRESSES if "." not in each}
    assert {target for _, target, _ in links(site)} >= {"/docs/vectors.json", "/openapi.json"}


def test_every_link_leads_somewhere(site: dict[str, Html], server: Any) -> None:
    """To a page that is there, and an anchor on it; or, with https, to one of a few hosts."""
    answers: dict[str, int] = {}
    dead = []
    for page, target, anchor in links(site):
        if re.match(r"[a-z]+:", target):
            host = re.match(r"https://([^/]+)", target)
            if host is None or host[1] not in ELSEWHERE:
                dead.append((page, target))
        elif target in site:
            if anchor and anchor not in site[target].anchors:
                dead.append((page, f"{target}#{anchor}"))
        elif answers.setdefault(target, server.client(None).get(target).status) != 200:
            dead.append((page, target))
    assert not dead


def test_an_anchor_is_one_place(site: dict[str, Html]) -> None:
    for address, page in site.items():
        assert len(page.anchors) == len(set(page.anchors)), address


def test_pages_need_nothing_from_elsewhere_and_run_nothing(site: dict[str, Html], server: Any) -> None:
    """And the policy they come with would not allow it."""
    for address, page in site.items():
        assert not {"script", "img", "iframe", "style", "form"} & set(page.tags), address
        assert not {each for each in page.attributes if each in {"src", "style"} or each.startswith("on")}, address
        assert page.tags.count("link") == 1
        policy = server.client(None).get(address).headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'self';")
        assert "unsafe" not in policy
    style = server.client(None).get(next(each for each in site["/docs"].links if "style.css" in each))
    assert style.headers["content-type"] == "text/css; charset=utf-8"
    assert not re.search(rb"@import|url\(", style.body)


def test_the_entry_is_the_guide_as_it_stands_in_the_repository(site: dict[str, Html]) -> None:
    """Every heading, every line of code and, folded away, every schema."""
    text = (ROOT / "docs/guide.md").read_text(encoding="utf-8")
    page = site["/docs"]
    shown = "".join(page.words)

    for block in re.findall(r"^```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        assert block in shown
    for heading in re.findall(r"^##+ (.+)$", text, re.MULTILINE):
        assert heading.replace("`", "") in shown
    assert page.tags.count("summary") == text.count("<details>") + 1
    assert "<details>" not in shown
    assert "[ ]" not in shown
    assert "```" not in shown


def test_every_page_lists_its_sections_and_the_other_documents(site: dict[str, Html]) -> None:
    navigation = {document.address for shelf in SHELVES for document in shelf.documents}
    for address, page in site.items():
        assert navigation <= set(page.links), address
        sections = [tag for tag in page.tags if tag == "h3"]
        assert len([link for link in page.links if link.startswith("#")]) >= len(sections)


def test_every_page_of_the_repositorys_documentation_is_served() -> None:
    """Whoever writes one names it in SHELVES."""
    pages = {f"docs/{path.name}" for path in (ROOT / "docs").iterdir() if path.suffix in {".md", ".json"}}

    assert pages <= set(FILES.values())


def test_every_refusal_leads_to_what_it_means(site: dict[str, Html], server: Any) -> None:
    page = site["/docs/errors"]
    assert set(STATUS) <= set(page.anchors)
    refused = server.client(None).get("/v1/endpoints").json
    target, anchor = urldefrag(refused["type"])
    assert (target, anchor) == ("/docs/errors", "unauthorized")
    text = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## `(\w+)`\n\nStatus (\d{3})\. ", text, re.MULTILINE)
    assert {code: int(status) for code, status in sections} == STATUS
    listed = re.findall(r"^\| (\d{3}) \| \[`(\w+)`\]\(#\2\) \| \w", text, re.MULTILINE)
    assert {code: int(status) for status, code in listed} == STATUS


def test_the_vectors_are_the_repositorys(server: Any) -> None:
    answer = server.client(None).get("/docs/vectors.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.body == (ROOT / "docs/vectors.json").read_bytes()
    assert answer.json["verified"]


@pytest.mark.parametrize("address", sorted(ADDRESSES))
def test_what_a_client_has_is_not_sent_again(server: Any, address: str) -> None:
    """And HEAD tells of it what GET would."""
    nobody = server.client(None)
    first = nobody.get(address)
    tag = first.headers["etag"]
    assert "max-age=" in first.headers["cache-control"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = nobody.get(address, if_none_match=known)
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    assert nobody.get(address, if_none_match='"other"').body == first.body
    head = nobody.call("HEAD", address)
    assert (head.status, head.body) == (200, b"")
    assert {**head.headers, "date": ""} == {**first.headers, "date": ""}


@pytest.mark.parametrize("path", ["/docs/nope", "/docs/guide.md", "/docs/a/b", "/docs/api/x", "/docs/%3Cscript%3E"])
def test_where_there_is_no_page_one_says_which_there_are(server: Any, path: str) -> None:
    answer = server.client(None).get(path)
    assert (answer.status, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    page = Html(answer.body.decode())
    assert {document.address for shelf in SHELVES for document in shelf.documents} <= set(page.links)
    assert "nope" not in answer.body.decode()
    assert "script" not in answer.body.decode()


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/docs/", "/docs"),
        ("/docs/api/", "/docs/api"),
        ("/docs/guide", "/docs"),
        ("/docs/guide/", "/docs"),
    ],
)
def test_what_is_meant_by_another_name_or_a_slash_too_many_is_found(server: Any, path: str, meant: str) -> None:
    answer = server.client(None).get(path)
    assert (answer.status, answer.headers["location"]) == (308, meant)


def test_documents_are_only_read(server: Any) -> None:
    answer = server.client(None).post("/docs/api", {})
    assert (answer.code, answer.headers["allow"]) == ("method_not_allowed", "GET, HEAD")


def test_no_html_comes_through_but_what_is_folded() -> None:
    text = (
        "# A & B\n\n<script>alert(1)</script>\n\n<b onclick=x>bold</b> [x](javascript:alert) ![a picture](x.png)\n\n"
        "<details><summary>More <code>a<b</code> <i>c</i></summary>\n\n* inside\n\n</details>\n"
    )
    made = article(text, lambda target: target)
    page = Html(made.html)

    assert made.title == "A & B"
    assert page.tags == ["h1", "p", "p", "details", "summary", "code", "ul", "li"]
    assert page.attributes == {"id"}
    assert "<script>alert(1)</script>" in "".join(page.words)
    assert "a picture" in "".join(page.words)


def test_links_to_what_is_not_served_are_words() -> None:
    made = article("## [Gone `code`](x.md)\n\n[gone](../bench/x.md) and [there](y.md#z)", {"y.md#z": "/docs/y#z"}.get)

    assert '<p>gone and <a href="/docs/y#z">there</a></p>' in made.html
    assert made.html.startswith('<h2 id="gone-code">')


def test_headings_that_are_the_same_have_anchors_of_their_own() -> None:
    made = article("# One\n\n## `a_b.c`, it's\n\n## Two\n\n### Two\n\n#### Two\n", lambda target: target)

    assert [each.anchor for each in made.headings] == ["a_bc-its", "two", "two-1"]
    assert 'id="two-2"' in made.html


def test_long_names_may_be_broken_at_their_joints_only() -> None:
    inline = "`UPLIFT_MAX_IN_FLIGHT`, `no_<b>_that_is_longer` and `not_found`, on `127.0.0.1`"
    text = f"{inline}\n\n```sh\na_long_name_in_a_block\n```"
    made = article(text, lambda target: target)

    assert "<code>UPLIFT_<wbr>MAX_<wbr>IN_<wbr>FLIGHT</code>" in made.html
    assert "<code>no_&lt;b&gt;_<wbr>that_<wbr>is_<wbr>longer</code>" in made.html
    assert "<code>not_found</code>, on <code>127.0.0.1</code>" in made.html
    assert "a_long_name_in_a_block" in made.html


def test_a_server_whose_documentation_nobody_reads_does_not_load_what_makes_it() -> None:
    program = "import sys, json, uplift_server.app; print(json.dumps([*sys.modules]))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)

    assert "uplift_server.api.routes.documentation" in loaded
    assert not {"markdown_it", "jinja2", "uplift_server.api.documentation.pages"} & set(loaded)
