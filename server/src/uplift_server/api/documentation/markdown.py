"""From Markdown, as GitHub shows it, to HTML: with an address for every heading, and no HTML but ours."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from itertools import pairwise
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererProtocol
from markdown_it.rules_block import StateBlock
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

CONTENTS_LEVELS: Final = ("h2", "h3")
"""Headings that a table of contents lists."""

_FOLD: Final = re.compile(r"<details><summary>(.+)</summary>")
_FOLD_END: Final = "</details>"
_TASK: Final = re.compile(r"\[[ x]\] ")
_JOINT: Final = re.compile(r"(?<=[_/.,])(?=[\w{])")
_NARROW_CHARACTERS: Final = 14
"""A name that is no longer than this fits wherever it stands."""


@dataclass(frozen=True, slots=True)
class Heading:
    """A line of a table of contents."""

    level: str
    text: str
    anchor: str


@dataclass(frozen=True, slots=True)
class Article:
    """A text as HTML, with what a page says about it."""

    title: str
    html: str
    headings: tuple[Heading, ...]


def article(text: str, served: Callable[[str], str | None]) -> Article:
    """The whole text. `served` gives a link's target its address, or None where the link's words are to stand alone."""
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
    """A sentence or two without blocks, as HTML."""
    return str(_parser().renderInline(text))


def anchor(text: str, taken: set[str]) -> str:
    """What GitHub makes of a heading's text, and adds to those that are taken."""
    slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
    found, number = slug, 0
    while found in taken:
        number += 1
        found = f"{slug}-{number}"
    taken.add(found)
    return found


def code(text: str) -> str:
    """A name or an expression, as HTML. A long one may be broken at its joints, so that tables fit narrow screens."""
    parts = _JOINT.split(text) if len(text) > _NARROW_CHARACTERS else [text]
    return f"<code>{'<wbr>'.join(map(escape, parts))}</code>"


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("code_inline", _code_inline)
    parser.block.ruler.before("paragraph", "fold", _fold, {"alt": ["paragraph"]})
    return parser


def _fold(state: StateBlock, start: int, _end: int, silent: bool) -> bool:
    """What is folded away until it is wanted: the only HTML that our documents use, each tag on a line of its own."""
    line = state.src[state.bMarks[start] + state.tShift[start] : state.eMarks[start]]
    begins = _FOLD.fullmatch(line)
    if begins is None and line != _FOLD_END:
        return False
    if silent:
        return True
    if begins is None:
        state.push("fold_close", "details", -1)
    else:
        state.push("fold_open", "details", 1)
        state.push("summary_open", "summary", 1)
        words = state.push("inline", "", 0)
        words.content, words.map, words.children = re.sub("</?code>", "`", begins[1]), [start, start + 1], []
        state.push("summary_close", "summary", -1)
    state.line = start + 1
    return True


def _code_inline(
    _renderer: RendererProtocol, tokens: Sequence[Token], index: int, _options: OptionsDict, _env: EnvType
) -> str:
    return code(tokens[index].content)


def _anchored(tokens: list[Token]) -> Iterator[Heading]:
    """Give every heading its anchor and, below the title, a link to itself."""
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
    """The same with links that lead to where their targets are served, or are only their words; so are pictures."""
    kept = True
    for token in tokens:
        if token.type == "image":
            yield Token("text", "", 0, content=token.content)
            continue
        if token.type == "link_open":
            address = served(str(token.attrs["href"]))
            kept = address is not None
            token.attrs["href"] = address or ""
        if kept or token.type not in {"link_open", "link_close"}:
            yield token


def _framed(tokens: list[Token]) -> Iterator[Token]:
    """The same with tables in a frame that scrolls, and boxes in front of what is to be ticked off."""
    item = None
    for token in tokens:
        if token.type == "table_open":
            yield Token("frame_open", "div", 1, attrs={"class": "table"}, block=True)
        if token.type in {"th_open", "td_open"}:
            # Alignment comes as a style, which the pages' policy would not apply.
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
