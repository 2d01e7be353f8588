"""The style sheet of the panels: the parts of a report inside another page, in that page's colours, light or dark as it is."""

from __future__ import annotations

import re

from lorax.render.style import DARK_RAMP, DARK_TONES, LIGHT_RAMP, LIGHT_TONES, PARTS_STYLE, SVG_SHAPES, ramp

ROOT = ".lorax-view.lorax-view"
"""Everything of ours in a page that is not ours lies in an element of this class; named twice, to count more than that page's rules."""

_GROUND = (
    "--ground:var(--background-fill-primary,Canvas);--card:var(--background-fill-primary,Canvas);--ink:var(--body-text-color,CanvasText);"
    "--soft:color-mix(in srgb,var(--body-text-color,CanvasText) 68%,var(--background-fill-primary,Canvas));"
    "--line:var(--border-color-primary,#8886);"
)
"""gradio's own subdued text is too faint to read small."""

_OWN = """
&{color:var(--ink);font-size:15px;line-height:1.5;overflow-wrap:anywhere}
&:empty{display:none}
& p{max-width:74ch;margin:0 0 10px;color:inherit}
& h1{font-size:24px;font-weight:650;letter-spacing:-.015em;margin:8px 0 2px;color:var(--ink)}
& h2{font-size:17px;line-height:1.3;font-weight:600;margin:26px 0 6px;color:var(--ink)}
& h3{font-size:15px;font-weight:600;margin:18px 0 4px;color:var(--ink)}
& .soft{color:var(--soft)}
& .small{font-size:13.5px}
& .verdict{margin:0 0 14px;padding:14px 18px}
& .verdict{border-style:solid;border-width:1px 1px 1px 5px;border-color:var(--line) var(--line) var(--line) var(--tone)}
& .verdict strong{font-size:19px;line-height:1.35}
& .verdict .pair{font-size:13.5px;color:var(--soft);margin:0 0 4px}
& .tiles{grid-template-columns:repeat(auto-fit,minmax(148px,1fr))}
& .tile b{font-size:19px;color:var(--ink)}
& .tile span{color:var(--ink)}
& table{color:var(--ink);border:0;table-layout:auto}
& th,& td{border-width:0 0 1px;background:none;color:var(--ink)}
& th{color:var(--soft)}
& tr,& thead,& tbody{border:0;background:none}
& .side{display:flex;flex-wrap:wrap;gap:0 36px}
& .side section{flex:0 1 auto;min-width:0;max-width:100%}
& .side p,& .side ul{max-width:54ch}
& summary{font-size:14.5px}
& svg{display:block}
& .chip{line-height:1.6}
& .wide{overflow-x:auto}
& .wide td,& .wide th{overflow-wrap:normal;white-space:nowrap}
& .wide td.long{white-space:normal;padding-top:0}
& .wide tr.follows td{border-bottom-width:0}
& .error{padding:10px 14px;border-radius:8px;color:var(--ink);background:var(--card)}
& .error{border-style:solid;border-width:1px 1px 1px 5px;border-color:var(--bad)}
& .error b{color:var(--bad)}
& .told{padding:10px 14px;border:1px solid var(--line);border-radius:8px;color:var(--soft)}
& .bar{height:10px;border-radius:99px;background:var(--none);overflow:hidden;margin:0 0 6px}
& .bar i{display:block;height:100%;border-radius:99px;background:var(--accent)}
& .path{font:13px/1.5 ui-monospace,'Cascadia Mono','DejaVu Sans Mono',Menlo,Consolas,monospace}
& .matrix td{text-align:center;vertical-align:middle;padding:8px 10px;font-variant-numeric:tabular-nums;min-width:64px;border-radius:4px}
& .matrix th{text-align:center;padding:6px 10px;font-weight:500;white-space:normal;max-width:16ch}
& .matrix tbody th{text-align:right}
& .matrix td.lit{color:#fff}
.dark & .matrix td.lit{color:#0b1d1a}
& .matrix{width:auto;border-collapse:separate;border-spacing:3px}
.lorax-bar .progressDiv{position:static;width:100%;flex:1 0 100%}
#lorax_refresh{max-width:220px;margin-left:auto}
@media (max-width:600px){& dl{grid-template-columns:1fr;gap:0}& dd{margin-bottom:8px}}
"""


def panel_style() -> str:
    """The whole sheet; it touches nothing outside `ROOT`."""
    light = f"{ROOT}{{{_GROUND}{LIGHT_TONES}{ramp(LIGHT_RAMP)}}}"
    dark = f".dark {ROOT}{{{_GROUND}{DARK_TONES}{ramp(DARK_RAMP)}}}"
    ramps = "".join(f"& .matrix .h{i}{{background:var(--h{i})}}" for i in range(len(LIGHT_RAMP)))
    shapes = SVG_SHAPES.replace("text{", "svg text{", 1).replace("rect{", "svg rect{", 1)
    return "\n".join([light, dark, _inside(shapes + PARTS_STYLE), (_OWN + ramps).replace("&", ROOT).strip()]) + "\n"


def _inside(sheet: str) -> str:
    """The rules of a sheet without at-rules, each for what lies in `ROOT`."""
    rules = re.findall(r"([^{}]+)\{([^{}]*)\}", sheet)
    return "".join(f"{','.join(f'{ROOT} {one.strip()}' for one in names.split(','))}{{{body.strip()}}}\n" for names, body in rules)
