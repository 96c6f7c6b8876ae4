"""A model card as HTML that is safe to show: its author is trusted with a model, not with a page.

Markdown without raw HTML and without images (a page asks no other host for anything); links lead
where `http`, `https` or `mailto` do, and tell the far side nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict

from shoal.card import card_markdown

MAX_CARD_CHARACTERS = 200_000


def card_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The card of a manifest as `markdown` and as `html`."""
    text = card_markdown(manifest)[:MAX_CARD_CHARACTERS]
    return {"markdown": text, "html": render(text)}


def render(text: str) -> str:
    """Markdown as safe HTML.

    >>> render("**9** <script>alert(1)</script>")
    '<p><strong>9</strong> &lt;script&gt;alert(1)&lt;/script&gt;</p>\\n'
    """
    return str(_parser().render(text))


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    parser.add_render_rule("link_open", _open_link)
    return parser


def _open_link(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, _env: Any
) -> str:
    tokens[index].attrSet("rel", "noopener noreferrer nofollow")
    return self.renderToken(tokens, index, options, _env)
