"""Reports as text: pure functions from values to JSON, HTML, Markdown and terminal text."""

from __future__ import annotations

from lorax.render.data import plan_to_json, to_json
from lorax.render.html import to_html
from lorax.render.index import index_to_html
from lorax.render.inspection import adapter_to_json, checkpoint_to_json, inspection_to_text
from lorax.render.markdown import to_markdown
from lorax.render.outcomes import bake_to_json, bake_to_text, reformed_to_json, reformed_to_text
from lorax.render.picture import to_svg
from lorax.render.similarity import similarity_to_html, similarity_to_json, similarity_to_markdown, similarity_to_text
from lorax.render.terminal import plan_to_text, to_text
from lorax.render.words import share_to_text

__all__ = [
    "adapter_to_json",
    "bake_to_json",
    "bake_to_text",
    "checkpoint_to_json",
    "index_to_html",
    "inspection_to_text",
    "plan_to_json",
    "plan_to_text",
    "reformed_to_json",
    "reformed_to_text",
    "share_to_text",
    "similarity_to_html",
    "similarity_to_json",
    "similarity_to_markdown",
    "similarity_to_text",
    "to_html",
    "to_json",
    "to_markdown",
    "to_svg",
    "to_text",
]
