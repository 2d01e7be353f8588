"""Pictures that show what became of an adapter: source, source with it, and the target in several ways, from the same noise."""

from __future__ import annotations

from lorax.train.compare.report import comparison_to_json, comparison_to_text
from lorax.train.compare.run import Compared, Comparison, compare_pictures
from lorax.train.compare.settings import METHODS, CompareSettings

__all__ = ["METHODS", "CompareSettings", "Compared", "Comparison", "compare_pictures", "comparison_to_json", "comparison_to_text"]
