"""Converts Markdown to HTML as GitHub does, with heading anchors and highlighted code.

The output does not contain HTML elements from the source, except `<details>`.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from itertools import groupby, pairwise
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererProtocol
from markdown_it.rules_block import StateBlock
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from pygments import token as kinds
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

CONTENTS_LEVELS: Final = ("h2", "h3")
"""The heading levels that a table of contents includes."""

_DETAILS: Final = re.compile(r"<details><summary>(.+)</summary>")
_DETAILS_END: Final = "</details>"
_COMMENT: Final = re.compile(r"<!--.*-->")
_TASK: Final = re.compile(r"\[[ x]\] ")
_JOINT: Final = re.compile(r"(?<=[_/.,])(?=[\w{])")
_SHORT_CHARACTERS: Final = 14
"""Maximum length, in characters, of inline code that browsers must keep on one line."""
_CLASSES: Final = {
    kinds.Keyword: "keyword",
    kinds.Operator.Word: "keyword",
    kinds.String: "string",
    kinds.Number: "number",
    kinds.Name.Function: "name",
    kinds.Name.Class: "name",
    kinds.Name.Decorator: "name",
    kinds.Name.Builtin: "name",
    kinds.Name.Variable: "name",
    kinds.Name.Tag: "tag",
    kinds.Name.Attribute: "tag",
    kinds.Comment: "comment",
    kinds.Generic.Prompt: "prompt",
    kinds.Generic.Output: "output",
}
"""The class in `style.css` for each token type. A subtype has the class of its type."""


@dataclass(frozen=True, slots=True)
class Heading:
    """An entry in a table of contents."""

    level: str
    text: str
    anchor: str


@dataclass(frozen=True, slots=True)
class Article:
    """The content of a page: its HTML, title and headings."""

    title: str
    html: str
    headings: tuple[Heading, ...]


def article(text: str, served: Callable[[str], str | None]) -> Article:
    """Convert Markdown text to HTML.

    `served` resolves the target of a link or image to an address. If `served` returns None, only the link text or the
    image's alternative text remains.
    """
    parser = _parser()
    tokens = parser.parse(text)
    headings = list(_anchored(tokens))
    for token in tokens:
        if token.children is not None:
            token.children = list(_linked(token.children, served))
    title = next((each.text for each in headings if each.level == "h1"), "")
    contents = tuple(each for each in headings if each.level in CONTENTS_LEVELS)
    return Article(title, parser.renderer.render(list(_framed(tokens)), parser.options, {}), contents)


def inline(text: str) -> str:
    """Convert Markdown without blocks, such as one or two sentences, to HTML."""
    return str(_parser().renderInline(text))


def anchor(text: str, taken: set[str]) -> str:
    """Return the anchor for a heading according to GitHub's rules, and add the anchor to `taken`."""
    slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
    found, number = slug, 0
    while found in taken:
        number += 1
        found = f"{slug}-{number}"
    taken.add(found)
    return found


def code(text: str) -> str:
    """Render inline code. Add `<wbr>` at the separators of a long name, so that tables fit narrow screens."""
    parts = _JOINT.split(text) if len(text) > _SHORT_CHARACTERS else [text]
    return f"<code>{'<wbr>'.join(map(escape, parts))}</code>"


def code_block(text: str, language: str = "") -> str:
    """Render a code block, highlighted if Pygments knows the language (`sh`, `python`, `json` …)."""
    lexer = _lexer(language)
    html = escape(text) if lexer is None else "".join(_highlighted(text, lexer))
    return f'<div class="code"><pre tabindex="0"><code>{html}</code></pre></div>\n'


def _highlighted(text: str, lexer: Lexer) -> Iterator[str]:
    for name, tokens in groupby(lexer.get_tokens(text), key=lambda each: _class(each[0])):
        words = escape("".join(word for _, word in tokens))
        yield f'<span class="{name}">{words}</span>' if name else words


@cache
def _class(kind: object) -> str:
    return next((name for each, name in _CLASSES.items() if kind in each), "")


@cache
def _lexer(language: str) -> Lexer | None:
    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("code_inline", _code_inline)
    parser.add_render_rule("fence", _fence)
    parser.block.ruler.before("paragraph", "details", _details, {"alt": ["paragraph", "blockquote", "list"]})
    return parser


def _details(state: StateBlock, start: int, _end: int, silent: bool) -> bool:
    """Parse a line with the tags of `<details>`, the only HTML element in our documents. Drop a line with a comment.

    The opening tags, the closing tag and each comment must be on separate lines. Return False for all other lines.
    """
    line = state.src[state.bMarks[start] + state.tShift[start] : state.eMarks[start]]
    begins = _DETAILS.fullmatch(line)
    is_comment = _COMMENT.fullmatch(line) is not None
    if begins is None and line != _DETAILS_END and not is_comment:
        return False
    if silent:
        return True
    if begins is not None:
        state.push("details_open", "details", 1)
        state.push("summary_open", "summary", 1)
        words = state.push("inline", "", 0)
        words.content, words.map, words.children = re.sub("</?code>", "`", begins[1]), [start, start + 1], []
        state.push("summary_close", "summary", -1)
    elif not is_comment:
        state.push("details_close", "details", -1)
    state.line = start + 1
    return True


def _code_inline(
    _renderer: RendererProtocol, tokens: Sequence[Token], index: int, _options: OptionsDict, _env: EnvType
) -> str:
    return code(tokens[index].content)


def _fence(
    _renderer: RendererProtocol, tokens: Sequence[Token], index: int, _options: OptionsDict, _env: EnvType
) -> str:
    return code_block(tokens[index].content, tokens[index].info.strip())


def _anchored(tokens: list[Token]) -> Iterator[Heading]:
    """Yield the headings. Add an anchor to each heading and, except in the title, a link to this anchor."""
    taken: set[str] = set()
    for opening, words in pairwise(tokens):
        if opening.type == "heading_open":
            children = words.children or []
            text = "".join(each.content for each in children)
            opening.attrs["id"] = anchor(text, taken)
            yield Heading(opening.tag, text, str(opening.attrs["id"]))
            if opening.tag != "h1":
                link = Token("link_open", "a", 1, attrs={"href": f"#{opening.attrs['id']}"})
                words.children = [link, *children, Token("link_close", "a", -1)]


def _linked(tokens: list[Token], served: Callable[[str], str | None]) -> Iterator[Token]:
    """Replace the targets of links and images. If a target is not served, keep only the text of the link or image."""
    kept = True
    for token in tokens:
        if token.type == "image":
            yield from _pictured(token, served(str(token.attrs["src"])))
            continue
        if token.type == "link_open":
            address = served(str(token.attrs["href"]))
            kept = address is not None
            token.attrs["href"] = address or ""
        if kept or token.type not in {"link_open", "link_close"}:
            yield token


def _pictured(image: Token, address: str | None) -> Iterator[Token]:
    """Yield an image with a link to its file. If the image is not on this server, yield its alternative text."""
    if address is None or not address.startswith("/"):
        yield Token("text", "", 0, content=image.content)
        return
    yield Token("link_open", "a", 1, attrs={"href": address})
    image.attrs["src"] = address
    yield image
    yield Token("link_close", "a", -1)


def _framed(tokens: list[Token]) -> Iterator[Token]:
    """Wrap each table in an element that scrolls, and mark the items of task lists."""
    item = None
    for token in tokens:
        if token.type == "table_open":
            yield Token("frame_open", "div", 1, attrs={"class": "table", "tabindex": "0"}, block=True)
        if token.type in {"th_open", "td_open"}:
            # Remove the alignment: it is a `style` attribute, which the Content-Security-Policy blocks.
            token.attrs.pop("style", None)
        if token.type == "list_item_open":
            item = token
        if token.type == "inline" and item is not None:
            first = token.children[0] if token.children else None
            if first is not None and _TASK.match(first.content):
                item.attrs["class"] = "task"
                first.content = first.content[4:]
            item = None
        yield token
        if token.type == "table_close":
            yield Token("frame_close", "div", -1, block=True)
