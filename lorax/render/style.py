"""Colours and the style sheets of page and pictures; light and dark by the reader's system, nothing fetched from anywhere."""

from __future__ import annotations

LIGHT_RAMP = ("#f6dfc0", "#f0cea8", "#ebbd90", "#c8b895", "#99b5a1", "#6ea79f", "#4a9091", "#277881", "#1a5c6c", "#0e4257")
DARK_RAMP = ("#4a3527", "#5f442f", "#745336", "#6c644f", "#52736a", "#468782", "#54a298", "#6ebeae", "#a3d9c5", "#d6f5dc")
"""From chance (sand) to identical (deep or bright teal), even in OKLab; sand and teal stay apart for colour-blind readers."""

STEPS = len(LIGHT_RAMP)


def ramp(colours: tuple[str, ...]) -> str:
    """The colours as variables ``--h0``, ``--h1``, …"""
    return "".join(f"--h{i}:{colour};" for i, colour in enumerate(colours))


LIGHT_TONES = "--none:#e3e3de;--hatch:#b9bab3;--good:#1f7a6d;--weak:#a8630f;--bad:#b3372b;--plain:#4b6a86;--accent:#1a5c6c;"
DARK_TONES = "--none:#343b3e;--hatch:#6b777a;--good:#63c7b2;--weak:#e3a857;--bad:#ef8376;--plain:#8fb3d3;--accent:#7fcabb;"
_LIGHT = "--ground:#fbfaf7;--card:#ffffff;--ink:#1d2528;--soft:#5b666b;--line:#dfe1dc;" + LIGHT_TONES + ramp(LIGHT_RAMP)
_DARK = "--ground:#14181a;--card:#1b2124;--ink:#e6e9e6;--soft:#9aa5a6;--line:#30383b;" + DARK_TONES + ramp(DARK_RAMP)
COLOURS = f":root{{color-scheme:light dark;{_LIGHT}}}@media (prefers-color-scheme:dark){{:root{{{_DARK}}}}}"

SVG_SHAPES = (
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;font-size:10.5px;fill:var(--soft)}"
    ".head{font-size:13px;font-weight:600;fill:var(--ink)}.stage{font-weight:600;fill:var(--ink)}"
    ".mid{text-anchor:middle}.end{text-anchor:end}.group{fill:var(--ink)}.rule{stroke:var(--line);stroke-width:1}"
    "rect{rx:2px}.skip{fill:url(#hatch);stroke:var(--hatch);stroke-width:.6}.none{fill:var(--none)}"
    ".hatch-ground{fill:var(--ground)}.hatch-line{stroke:var(--hatch);stroke-width:1.2;fill:none}"
    ".node{fill:var(--accent)}.gone{fill:none;stroke:var(--hatch);stroke-width:1.2;stroke-dasharray:2 2}"
    ".tie{fill:none;stroke-width:2.2;stroke-opacity:.9}"
    + "".join(f".h{i}{{fill:var(--h{i})}}.k{i}{{stroke:var(--h{i})}}" for i in range(STEPS))
)
SVG_STYLE = COLOURS + SVG_SHAPES + ".ground{fill:var(--ground);rx:0}.title{font-size:17px;font-weight:650;fill:var(--ink)}"
"""For a picture in a file of its own."""

PARTS_STYLE = """
.verdict{margin:26px 0 20px;padding:18px 22px;
  background:var(--card);border:1px solid var(--line);border-left:5px solid var(--tone);border-radius:8px}
.verdict strong{display:block;font-size:21px;color:var(--tone);letter-spacing:-.01em}
.verdict p{margin:4px 0 0}
.good{--tone:var(--good)}.weak{--tone:var(--weak)}.bad{--tone:var(--bad)}.plain{--tone:var(--plain)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(178px,1fr));gap:12px;margin:0 0 8px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:14px 16px}
.tile b{display:block;
  white-space:nowrap;font-size:22px;font-weight:600;letter-spacing:-.02em;line-height:1.25;font-variant-numeric:tabular-nums}
.tile span{display:block;line-height:1.35;font-size:13px;font-weight:600}
.tile p{font-size:13px;line-height:1.45;color:var(--soft);margin:4px 0 0}
table{border-collapse:collapse;width:100%;font-size:14.5px;margin:8px 0 14px}
th{text-align:left;font-weight:600;font-size:13px;color:var(--soft);border-bottom:1px solid var(--line);padding:6px 14px 6px 0}
td{border-bottom:1px solid var(--line);padding:6px 14px 6px 0;vertical-align:top;overflow-wrap:anywhere}
td.n,th.n{text-align:right;padding-right:26px;font-variant-numeric:tabular-nums;white-space:nowrap}
code{font:13px/1.5 ui-monospace,'Cascadia Mono','DejaVu Sans Mono',Menlo,Consolas,monospace}
dl{display:grid;grid-template-columns:minmax(130px,max-content) 1fr;gap:5px 22px;margin:8px 0;font-size:14.5px}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
ul.notes{padding-left:20px;margin:8px 0}
details{margin:12px 0}summary{cursor:pointer;color:var(--accent)}
figure{margin:14px 0 0;overflow-x:auto}
figure svg{height:auto}
figure svg.blocks{max-width:100%}
figcaption{margin:2px 0 14px}
.legend{max-width:100%;height:auto}
.chip{display:inline-block;
  padding:0 9px;border-radius:99px;border:1px solid var(--tone);color:var(--tone);font-size:13px;white-space:nowrap}
"""
"""Of the parts in `lorax.render.page` and of figures, on a page that has the colours."""

PAGE_STYLE = (
    COLOURS
    + SVG_SHAPES.replace("text{", "svg text{", 1).replace("rect{", "svg rect{", 1)
    + """
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}
main{max-width:1040px;margin:0 auto;padding:44px 24px 72px}
header p{margin:0;color:var(--soft)}
h1{font-size:30px;line-height:1.2;letter-spacing:-.015em;margin:6px 0 8px;overflow-wrap:anywhere;font-weight:650}
h1 .to{color:var(--soft);font-weight:400}
h2{font-size:19px;letter-spacing:-.005em;margin:52px 0 6px}
h2+p{margin-top:0}
p{max-width:74ch;margin:0 0 12px}
.eyebrow{font-size:12.5px;letter-spacing:.08em;text-transform:uppercase;color:var(--soft)}
.soft{color:var(--soft)}.small{font-size:14px}
"""
    + PARTS_STYLE
    + """.tabs input{position:absolute;opacity:0;pointer-events:none}
.tabs label{display:inline-block;cursor:pointer;padding:4px 13px;
  border:1px solid var(--line);border-radius:99px;margin:0 6px 10px 0;font-size:14px;color:var(--soft)}
.tabs input:checked+label{color:var(--ink);border-color:var(--accent);box-shadow:inset 0 0 0 1px var(--accent)}
.tabs input:focus-visible+label{outline:2px solid var(--accent);outline-offset:2px}
.tabs figure{display:none}
#map-1:checked~.map-1,#map-2:checked~.map-2{display:block}
footer{margin-top:56px;padding-top:14px;border-top:1px solid var(--line);font-size:13px;color:var(--soft)}
a{color:var(--accent)}
.defs{position:absolute}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(232px,1fr));gap:14px;margin:14px 0 22px}
.card{display:block;text-decoration:none;color:inherit;background:var(--card);
  border:1px solid var(--line);border-radius:10px;padding:14px 16px}
.card:hover,.card:focus-visible{border-color:var(--accent)}
.card p{margin:8px 0 0;font-size:13px;line-height:1.45;color:var(--soft)}
.card .name{margin:10px 0 7px;font-size:15px;line-height:1.35;overflow-wrap:anywhere}
.shot{height:180px;overflow:hidden;mask-image:linear-gradient(#000 78%,transparent)}
@media print{details{display:block}.tabs figure{display:block}}
@media (max-width:600px){main{padding:24px 16px}h1{font-size:24px}dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:8px}}
"""
)
