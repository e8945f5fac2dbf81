"""The documentation at /docs is complete, linked, searchable and free of requests to other hosts."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, urldefrag

import pytest

from uplift_server.api.documentation.documents import ADDRESSES, FILES, NAVIGATION, PAGES, is_image, served
from uplift_server.api.documentation.markdown import article, code_block
from uplift_server.api.documentation.search import QUERY_CHARACTERS_MAX, RESULTS_MAX, Section, find, sections
from uplift_server.core.limits import SEARCHES_WAITING_MAX
from uplift_server.service.problem_documents import STATUS

ROOT = Path(__file__).parents[2]
VOID = {"meta", "link", "br", "wbr", "input", "img", "hr"}
IN_NAVIGATION = {document.address for group in NAVIGATION for document in group.documents}


class Html(HTMLParser):
    """The links, anchors, tags and text of a page. Raises an error if tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: list[str] = []
        self.sources: list[tuple[str, str]] = []
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record an opening tag."""
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "href":
                self.links.append(value or "")
            elif name == "src":
                self.sources.append((tag, value or ""))
            elif name == "id":
                self.anchors.append(value or "")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record a tag without content."""
        assert tag in VOID
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        """Check a closing tag."""
        assert self._open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        """Record text."""
        self.words.append(data)

    @property
    def text(self) -> str:
        """All text."""
        return "".join(self.words)


def fetch_page(server: Any, address: str) -> Html:
    """Fetch a page without a key."""
    response = server.client(None).get(address)
    assert response.status == 200, address
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    return Html(response.body.decode())


@pytest.fixture(scope="module")
def site(server: Any) -> dict[str, Html]:
    """Return each page that is linked from /docs, directly or indirectly, by address."""
    found: dict[str, Html] = {}
    waiting = ["/docs"]
    while waiting:
        address = waiting.pop()
        found[address] = fetch_page(server, address)
        reached = {urldefrag(link).url for link in found[address].links if re.match("/docs\\b", link)}
        pages = {each for each in reached if "." not in each}
        waiting += sorted(pages - found.keys() - set(waiting))
    return found


def links(site: dict[str, Html]) -> Iterator[tuple[str, str, str]]:
    """Yield the page, the target and the anchor of each link."""
    for address, page in site.items():
        for link in page.links:
            target, anchor = urldefrag(link)
            yield address, target or address, anchor


def test_links_reach_every_document(site: dict[str, Html]) -> None:
    assert set(site) == {each.address for each in PAGES}
    assert {target for _, target, _ in links(site)} >= {"/docs/vectors.json", "/openapi.json"}


def test_every_link_of_this_server_has_a_target(site: dict[str, Html], server: Any) -> None:
    """The page and the anchor exist. Links to other hosts use https."""
    statuses: dict[str, int] = {"/": 200}
    broken = []
    for page, target, anchor in links(site):
        if re.match(r"[a-z]+:", target):
            if not target.startswith(("https://", "mailto:", "data:,")):
                broken.append((page, target))
        elif target in site:
            if anchor and anchor not in site[target].anchors:
                broken.append((page, f"{target}#{anchor}"))
        elif statuses.setdefault(target, server.client(None).get(target).status) != 200:
            broken.append((page, target))
    assert not broken


def test_anchors_are_unique_on_a_page(site: dict[str, Html]) -> None:
    for address, page in site.items():
        assert len(page.anchors) == len(set(page.anchors)), address


def test_pages_load_only_local_files_and_have_no_inline_scripts(site: dict[str, Html], server: Any) -> None:
    client = server.client(None)
    for address, page in site.items():
        scripts = [source for tag, source in page.sources if tag == "script"]
        assert [urldefrag(each).url.partition("?")[0] for each in scripts] == ["/docs/script.js"], address
        assert page.tags.count("script") == 1
        assert [each.partition("?")[0] for each in page.links[:2]] == ["data:,", "/docs/style.css"]
        assert page.tags.count("link") == 2
        assert not {"iframe", "style"} & set(page.tags), address
        assert not {each for each in page.attributes if each == "style" or each.startswith("on")}, address
        assert all(source.startswith("/docs/") for _, source in page.sources), address
        policy = client.get(address).headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
    style = client.get(next(each for each in site["/docs"].links if "style.css" in each))
    assert style.headers["content-type"] == "text/css; charset=utf-8"
    assert not re.search(rb"@import|url\(", style.body)
    script = client.get(site["/docs"].sources[0][1])
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"


def test_pages_show_the_headings_and_code_of_their_files(site: dict[str, Html]) -> None:
    for address, source in FILES.items():
        if not source.endswith(".md"):
            continue
        text = (ROOT / source).read_text(encoding="utf-8")
        shown = site[address].text
        for block in re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            assert block in shown, address
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
        for heading in re.findall(r"^##+ (.+)$", prose, re.MULTILINE):
            assert re.sub(r"`|\[|\]\([^)]*\)", "", heading) in shown, address
        assert not re.search(r"<details>|<!--|\[ \]|```", shown), address


def test_every_page_has_the_navigation_and_its_contents(site: dict[str, Html]) -> None:
    for address, page in site.items():
        assert set(page.links) >= IN_NAVIGATION, address
        sections = [tag for tag in page.tags if tag == "h3"]
        assert len([link for link in page.links if link.startswith("#")]) >= len(sections)


def test_next_links_lead_through_all_pages(server: Any) -> None:
    address, visited = "/docs", ["/docs"]
    while found := re.search(r'<a rel="next" href="([^"]+)"', server.client(None).get(address).body.decode()):
        before, address = address, found[1]
        visited.append(address)
        assert f'<a rel="prev" href="{before}"' in server.client(None).get(address).body.decode()
    assert visited == [each.address for each in PAGES]


def test_every_documentation_file_is_in_the_navigation() -> None:
    files = {f"docs/{path.name}" for path in (ROOT / "docs").iterdir() if path.suffix in {".md", ".json"}}

    assert files <= set(FILES.values())


def test_the_type_of_an_error_links_to_its_description(site: dict[str, Html], server: Any) -> None:
    assert set(STATUS) <= set(site["/docs/errors"].anchors)
    rejected = server.client(None).get("/v1/endpoints").json
    assert urldefrag(rejected["type"]) == ("/docs/errors", "unauthorized")


def test_the_test_vectors_match_the_repository(server: Any) -> None:
    response = server.client(None).get("/docs/vectors.json")
    assert response.headers["content-type"] == "application/json"
    assert response.body == (ROOT / "docs/vectors.json").read_bytes()
    assert response.json["verified"]


@pytest.mark.parametrize("address", sorted(ADDRESSES))
def test_clients_can_cache_every_document(server: Any, address: str) -> None:
    client = server.client(None)
    first = client.get(address)
    tag = first.headers["etag"]
    assert "max-age=" in first.headers["cache-control"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = client.get(address, if_none_match=known)
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    assert client.get(address, if_none_match='"other"').body == first.body
    head = client.call("HEAD", address)
    assert (head.status, head.body) == (200, b"")
    assert {**head.headers, "date": ""} == {**first.headers, "date": ""}


def test_pages_are_compressed_for_clients_that_accept_it(server: Any) -> None:
    client = server.client(None)
    plain, compressed = client.get("/docs/api"), client.get("/docs/api", accept_encoding="br, gzip")

    assert (compressed.headers["content-encoding"], compressed.headers["vary"]) == ("gzip", "accept-encoding")
    assert "content-encoding" not in plain.headers
    assert int(compressed.headers["content-length"]) < len(plain.body) / 4
    assert compressed.body == plain.body  # The client decompresses the body.
    assert compressed.headers["etag"] != plain.headers["etag"]
    assert client.get("/docs/api", accept_encoding="gzip", if_none_match=compressed.headers["etag"]).status == 304


@pytest.mark.parametrize(
    "path",
    [
        "/docs/nope",
        "/docs/guide.md",
        "/docs/a/b",
        "/docs/api/x",
        "/docs/%3Cscript%3E",
        "/docs/nope.svg",
        "/docs/x/../y",
    ],
)
def test_unknown_addresses_get_a_page_with_the_navigation(server: Any, path: str) -> None:
    response = server.client(None).get(path)
    assert (response.status, response.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert response.headers["content-security-policy"].startswith("default-src 'none'")
    page = Html(response.body.decode())
    assert set(page.links) >= IN_NAVIGATION
    assert "nope" not in page.text
    assert page.tags.count("script") == 1


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/docs/", "/docs"),
        ("/docs/api/", "/docs/api"),
        ("/docs/guide", "/docs"),
        ("/docs/guide/", "/docs"),
        ("/docs/quickstart", "/docs"),
        ("/docs/api-reference", "/docs/api"),
    ],
)
def test_old_addresses_redirect(server: Any, path: str, target: str) -> None:
    response = server.client(None).get(path)
    assert (response.status, response.headers["location"]) == (308, target)


def test_documents_are_read_only(server: Any) -> None:
    response = server.client(None).post("/docs/api", {})
    assert (response.code, response.headers["allow"]) == ("method_not_allowed", "GET, HEAD")


def test_the_search_index_has_every_heading_of_every_page(site: dict[str, Html], server: Any) -> None:
    index = server.client(None).get("/docs/search.json").json
    found = {(index["pages"][page][0], anchor) for page, anchor, _, _ in index["sections"]}

    assert [address for address, _ in index["pages"]] == [each.address for each in PAGES]
    assert all(
        title and heading for (_, title), (_, _, heading, _) in zip(index["pages"], index["sections"], strict=False)
    )
    for address, page in site.items():
        assert {anchor for each, anchor in found if each == address} <= set(page.anchors)
        contents = {link[1:] for link in page.links if link.startswith("#")} - {"text"}
        assert {(address, each) for each in contents & set(page.anchors)} - found == set(), address


@pytest.mark.parametrize(
    ("query", "address"),
    [
        ("validation_failed", "/docs/errors#validation_failed"),
        ("VALIDATION_failed  ", "/docs/errors#validation_failed"),
    ],
)
def test_the_search_page_works_without_scripts(server: Any, query: str, address: str) -> None:
    page = fetch_page(server, f"/docs/search?q={quote(query)}")
    results = [link for link in page.links if "#" in link and link.startswith("/docs")]

    assert results[0] == address
    assert "<mark>" in server.client(None).get(f"/docs/search?q={quote(query)}").body.decode()


@pytest.mark.parametrize("query", ["whsec_", "Retry-After", "54.245.28.22"])
def test_the_search_finds_names_with_punctuation(server: Any, query: str) -> None:
    body = server.client(None).get(f"/docs/search?q={quote(query)}").body.decode()

    assert f"<mark>{query.lower()}</mark>" in body.lower()


@pytest.mark.parametrize(
    "query", ["", "   ", "no such words", "<script>alert(1)</script>", "x" * 5000, "%00", "a " * 200]
)
def test_the_search_page_accepts_any_query(server: Any, query: str) -> None:
    response = server.client(None).get(f"/docs/search?q={quote(query)}")
    page = Html(response.body.decode())

    assert response.status == 200
    assert page.tags.count("script") == 1
    assert len(response.body) < 100_000
    assert "x" * (QUERY_CHARACTERS_MAX + 1) not in page.text


def test_the_search_ranks_headings_before_text() -> None:
    html = (
        '<h1 id="a">Webhooks</h1><p>Rotate a <b>secret</b>.</p><table><tr><td>one</td><td>two</td></tr></table>'
        '<h2 id="b"><a href="#b">Rotate the <code>whsec_<wbr>secret</code></a></h2><p>Text &lt;x&gt; &amp; more</p>'
    )
    index = sections("/docs/x", "Webhooks", html)

    assert [(each.link, each.heading, each.text) for each in index] == [
        ("/docs/x#a", "Webhooks", "Rotate a secret . one two"),
        ("/docs/x#b", "Rotate the whsec_secret", "Text <x> & more"),
    ]
    assert [each.section.anchor for each in find(index, "ROTATE secret")] == ["b", "a"]
    assert [each.snippet for each in find(index, "<x>")] == ["Text <mark>&lt;x&gt;</mark> &amp; more"]
    assert not find(index, "rotate missing")


def test_the_search_limits_results_and_snippets() -> None:
    index = [
        Section("/docs/x", "Page", str(number), "Heading", f"{'word ' * 100}needle {'word ' * 100}")
        for number in range(99)
    ]
    results = find(index, "needle")

    assert len(results) == RESULTS_MAX
    assert re.fullmatch(r"… (word )+<mark>needle</mark>( w[ord]*)+ ?…", results[0].snippet.replace("word …", "word…"))
    assert len(results[0].snippet) < 250


def test_html_in_a_file_is_escaped_except_details() -> None:
    text = (
        "# A & B\n\n<script>alert(1)</script>\n\n<b onclick=x>bold</b> [x](javascript:alert) ![a picture](x.png)\n\n"
        "<details><summary>More <code>a<b</code> <i>c</i></summary>\n\n* inside\n\n</details>\n"
    )
    made = article(text, lambda target: target)
    page = Html(made.html)

    assert made.title == "A & B"
    assert page.tags == ["h1", "p", "p", "details", "summary", "code", "ul", "li"]
    assert page.attributes == {"id"}
    assert "<script>alert(1)</script>" in page.text
    assert "a picture" in page.text


def test_comments_around_generated_parts_are_dropped() -> None:
    text = (
        "<!-- generated: x -->\n| a |\n|---|\n| 1 |\n<!-- end generated -->\nText\n"
        "<!-- generated: y -->\n* b\n<!-- end generated -->\n"
    )
    page = Html(article(text, lambda target: target).html)

    assert page.text.split() == ["a", "1", "Text", "b"]
    assert page.tags == ["div", "table", "thead", "tr", "th", "tbody", "tr", "td", "p", "ul", "li"]


def test_code_is_highlighted_and_escaped() -> None:
    assert '<span class="keyword">true</span>' in code_block('{"a": true}', "json")
    assert Html(code_block("a <b> & 'c'\n", "python")).text == "a <b> & 'c'\n\n"
    assert Html(code_block("\n  a <b>\n", "no-such-language")).text == "\n  a <b>\n\n"
    assert (
        '<pre tabindex="0"><code>a &lt;b&gt;\n</code></pre>' in article("```\na <b>\n```", lambda target: target).html
    )


def test_links_to_files_that_are_not_served_become_text() -> None:
    made = article("## [Gone `code`](x.md)\n\n[gone](../bench/x.md) and [there](y.md#z)", {"y.md#z": "/docs/y#z"}.get)

    assert '<p>gone and <a href="/docs/y#z">there</a></p>' in made.html
    assert made.html.startswith('<h2 id="gone-code">')


def test_images_of_the_documentation_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = article(
        "![A chart](charts/a.svg) ![Other](https://example.com/x.png)", {"charts/a.svg": "/docs/charts/a.svg"}.get
    )

    assert '<a href="/docs/charts/a.svg"><img src="/docs/charts/a.svg" alt="A chart" /></a> Other' in made.html
    assert served("charts/a.svg", "docs/benchmarks.md") is None
    for address in ("/docs/../docs/x.svg", "/docs/vectors.json", "/docs/a/b/c.svg", "/etc/x.svg"):
        assert not is_image(address)


def test_equal_headings_get_different_anchors() -> None:
    made = article("# One\n\n## `a_b.c`, it's\n\n## Two\n\n### Two\n\n#### Two\n", lambda target: target)

    assert [each.anchor for each in made.headings] == ["a_bc-its", "two", "two-1"]
    assert 'id="two-2"' in made.html


def test_long_names_break_only_at_their_separators() -> None:
    inline = "`UPLIFT_MAX_IN_FLIGHT`, `no_<b>_that_is_longer` and `not_found`, on `127.0.0.1`"
    text = f"{inline}\n\n```sh\na_long_name_in_a_block\n```"
    made = article(text, lambda target: target)

    assert "<code>UPLIFT_<wbr>MAX_<wbr>IN_<wbr>FLIGHT</code>" in made.html
    assert "<code>no_&lt;b&gt;_<wbr>that_<wbr>is_<wbr>longer</code>" in made.html
    assert "<code>not_found</code>, on <code>127.0.0.1</code>" in made.html
    assert "a_long_name_in_a_block" in made.html


def test_the_renderer_is_loaded_at_the_first_request() -> None:
    program = "import sys, json, uplift_server.app; print(json.dumps([*sys.modules]))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)

    assert "uplift_server.api.routes.documentation" in loaded
    assert not {"markdown_it", "jinja2", "uplift_server.api.documentation.pages"} & set(loaded)


def test_concurrent_searches_are_limited(server: Any) -> None:
    fetch_page(server, "/docs/search?q=secret")
    clients = 4 * SEARCHES_WAITING_MAX
    with ThreadPoolExecutor(clients) as threads:
        responses = list(
            threads.map(lambda _: server.client(None).get("/docs/search?q=a+b+c+d+e+f"), range(4 * clients))
        )
    assert {response.status for response in responses} == {200, 503}
    assert {response.headers["retry-after"] for response in responses if response.status == 503} == {"1"}
    assert server.client(None).get("/docs/search?q=secret").status == 200
