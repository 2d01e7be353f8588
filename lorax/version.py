"""The version of this program, written into the files that it makes."""

from __future__ import annotations

VERSION = "0.1.0"
