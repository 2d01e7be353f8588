"""The figures as Markdown tables and as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.speed.spectra import SPECTRA, Totals
from benchmarks.speed.transfers import Warm

BEGIN, END = "<!-- numbers: written by python -m benchmarks.speed -->", "<!-- end of numbers -->"
MODELS = {"sdxl": "SDXL", "sd1": "SD1.5"}


@dataclass
class Page:
    """What was measured so far."""

    blocks: list[str] = field(default_factory=list[str])
    totals: list[Totals] = field(default_factory=list[Totals])
    hundred: list[float] = field(default_factory=list[float])

    def text(self) -> str:
        return "\n\n".join(self.blocks) + "\n"

    def line(self, text: str) -> None:
        self.blocks.append(text)

    def table(self, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        lines = [f"**{title}**", "", f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows)]
        self.blocks.append("\n".join(lines))

    def bases(self, device: torch.device, totals: list[Totals]) -> None:
        if device.type == "cpu":
            self.totals = totals
        head = ("spectrum", "`torch.linalg.svd` loop", "LoRA-X", "faster", "error of the SVD loop", "error of LoRA-X")
        for name in dict.fromkeys(t.name for t in totals):
            mine = [t for t in totals if t.name == name]
            self.table(f"Bases of {MODELS[name]} at k = 320 from cold, layers with k < n, {device.type}", head, [base_row(t) for t in mine])
            full = [t for t in mine if t.svd_full]
            if full:
                rows = [(t.spectrum, f"{t.svd_full:.1f} s", f"{t.ours_full:.1f} s", ratio(t.svd_full, t.ours_full)) for t in full]
                self.table(
                    f"{MODELS[name]}, layers with k ≥ n: one side is the whole space, the other needs no singular vectors", head[:4], rows
                )

    def ranks(self, found: list[tuple[int, float]]) -> None:
        rows = [[f"k = {k}" for k, _ in found], [f"{1000 * s:.0f} ms" for _, s in found]]
        self.table("One basis of a 1280 × 1280 weight (the fastest way at k = n is fp64 throughout)", rows[0], [rows[1]])

    def verdict(self, target: str, seconds: float) -> None:
        loops = [t.svd for t in self.totals if (t.name, t.spectrum) == ("sdxl", "Gaussian")]
        against = f"; the SVD loop over SDXL's layers, as above: {loops[0]:.0f} s, {ratio(loops[0], seconds)}" if loops else ""
        self.line(f"Verdict and block map, SDXL → {target}, both bases read, from cold: {seconds:.1f} s{against}.")

    def warm(self, target: str, found: Warm, peak: int) -> None:
        rows = [
            ("read and write the file", f"{found.floor:.2f} s", "1"),
            ("first transfer, nothing cached", f"{found.cold:.1f} s", ratio(found.cold, found.floor)),
            ("a further one", f"{found.warm:.2f} s", ratio(found.warm, found.floor)),
        ]
        title = f"A rank-32 LoRA (attention and feed-forward) from SDXL to {target}, `auto`; peak RssAnon {peak / 2**30:.2f} GiB"
        self.table(title, ("what", "seconds", "times the floor"), rows)

    def memory(self, modules: int, seconds: float, peak: int) -> None:
        self.line(
            f"`project` at k = 320 from cold, {modules} modules of a 1280-wide block ([10240, 1280] among them): "
            f"{seconds:.1f} s, peak RssAnon {peak / 2**30:.2f} GiB, of which torch and the program alone are about 0.2."
        )

    def many(self, modules: int, seconds: list[float], peak: int) -> None:
        self.hundred = seconds
        chosen = [i for i in (1, 2, 10, 12, 50, 100) if i <= len(seconds)]
        rows = [[f"{seconds[i - 1]:.2f} s" for i in chosen], [f"{sum(seconds[:i]):.1f} s" for i in chosen]]
        head = ("", *(f"adapter {i}" for i in chosen))
        title = f"Different LoRAs ({modules} modules) projected one after the other, k = 320, empty cache; peak {peak / 2**30:.2f} GiB"
        self.table(title, head, [("its own time", *rows[0]), ("all so far", *rows[1])])

    def jobs(self, found: list[tuple[int, float, int]]) -> None:
        rows = [(f"--jobs {n}", f"{seconds:.1f} s", f"{peak / 2**30:.2f} GiB") for n, seconds, peak in found]
        title = "`batch` of four small LoRAs, projected from an empty cache: all processes together, their start included"
        self.table(title, ("", "seconds", "peak RssAnon"), rows)

    def rivals(self, modules: int, found: dict[str, float]) -> None:
        ours = found["LoRA-X"]
        rows = [(name, f"{seconds:.2f} s", ratio(seconds, ours)) for name, seconds in found.items()]
        title = f"Cutting a rank-32 LoRA of {modules} modules to rank 16, without the start of the process"
        self.table(title, ("tool", "seconds", "against LoRA-X"), rows)

    def write_into(self, path: Path) -> None:
        """Between the marks of a page."""
        page = path.read_text(encoding="utf-8")
        head, _, rest = page.partition(BEGIN)
        _, found, tail = rest.partition(END)
        if not found:
            raise SystemExit(f"{path} has no marks to write between: {BEGIN} … {END}")
        path.write_text(f"{head}{BEGIN}\n\n{self.text()}\n{END}{tail}", encoding="utf-8")


def base_row(total: Totals) -> tuple[str, ...]:
    svd = f"{total.svd:.0f} s" if total.svd else "–"
    if total.double:
        svd += " (fp64)"
    if total.diverged:
        svd += f" (no convergence: {total.diverged} layers, left out)"
    worst = f"{max(total.svd_errors):.0e}" if total.svd_errors else "–"
    ours = f"{total.ours + total.ours_alone:.0f} s"
    return total.spectrum, svd, ours, ratio(total.svd, total.ours), worst, f"{max(total.errors, default=0.0):.0e}"


def ratio(a: float, b: float) -> str:
    return f"{a / b:.1f}×" if a and b else "–"


def plot(page: Page, path: Path) -> None:
    """Bars: seconds of SDXL's bases; line: seconds of one adapter after the other."""
    rows = [t for t in page.totals if t.name == "sdxl"]
    longest = max((t.svd for t in rows), default=1.0) or 1.0
    parts = ['<text x="10" y="22" font-weight="bold">Bases of SDXL at k = 320 from cold, seconds</text>']
    for i, total in enumerate(rows):
        y = 40 + 46 * i
        parts.append(f'<text x="10" y="{y + 20}">{total.spectrum}</text>')
        for j, (seconds, colour, who) in enumerate(((total.svd, "#999", "torch.linalg.svd"), (total.ours, "#2a7", "LoRA-X"))):
            width = max(1.0, 380 * seconds / longest)
            parts.append(f'<rect x="100" y="{y + 18 * j}" width="{width:.0f}" height="15" fill="{colour}"/>')
            parts.append(f'<text x="{106 + width:.0f}" y="{y + 12 + 18 * j}" font-size="11">{seconds:.0f} s, {who}</text>')
    top = 60 + 46 * len(SPECTRA)
    if page.hundred:
        parts.append(f'<text x="10" y="{top}" font-weight="bold">Seconds of each adapter, one after the other (k = 320)</text>')
        tall = max(page.hundred)
        step = 560 / len(page.hundred)
        for i, seconds in enumerate(page.hundred):
            height = max(1.0, 100 * seconds / tall)
            place = f'x="{20 + step * i:.1f}" y="{top + 120 - height:.1f}" width="{max(1.0, step - 2):.1f}" height="{height:.1f}"'
            parts.append(f'<rect {place} fill="#2a7"/>')
        parts.append(f'<text x="20" y="{top + 136}" font-size="11">first: {page.hundred[0]:.1f} s, last: {page.hundred[-1]:.2f} s</text>')
    size = top + 150
    style = 'font-family="sans-serif" font-size="13" fill="#222"'
    body = "\n".join(parts)
    size_words = f'width="620" height="{size}"'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" {size_words} viewBox="0 0 620 {size}"><rect {size_words} fill="#fff"/>'
    path.write_text(f"{svg}<g {style}>\n{body}\n</g></svg>\n", encoding="utf-8")
