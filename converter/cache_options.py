"""What ``cache`` can be told; no torch is needed to ask."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path

ABOUT = """What is kept so that it need not be computed again: singular vectors of bases, what pairs of bases have to do with each
other, adapters that the WebUI has transferred, and hashes of files. All of it can go at any time; it is made anew when it is wanted.

  list     each kind with its size
  size     the sum
  clear    remove all, or only the kinds that are named
  verify   read everything; damaged files are named and removed (exit code 1 if there were any)"""
EXAMPLES = """  lorax-convert cache list
  lorax-convert cache clear bases transferred
  lorax-convert cache verify --folder /somewhere/else --json"""
PARTS = ("bases", "transferred", "relations", "index", "leftovers")


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("what", metavar="{list,size,clear,verify}", choices=("list", "size", "clear", "verify"))
    parser.add_argument("parts", metavar="KIND", nargs="*", type=part, help=f"for clear: some of {', '.join(PARTS)}")
    parser.add_argument("--folder", metavar="DIR", type=Path, help="default: $LORAX_CACHE, or the user's cache folder")


def part(text: str) -> str:
    """A kind of content."""
    if text not in PARTS:
        raise ArgumentTypeError(f"'{text}' is not kept here: expected some of {', '.join(PARTS)}")
    return text
