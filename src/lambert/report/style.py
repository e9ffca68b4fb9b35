"""The page's style sheet: one column of text, figures in a grid, light and dark, phone and paper."""

from __future__ import annotations

from lambert.report.palette import FONT_STACK, PALETTE

_BLOCKS = {
    "surface": ("#f6f7f9", "#1a1f2a"),
    "accent": ("#2459c5", "#82adff"),
    "warn": ("#fff4dc", "#33290f"),
}


def style_sheet() -> str:
    """The whole style sheet, colours of the palette included."""
    colours = {**PALETTE, **_BLOCKS}
    light = "".join(f"--{role}:{pair[0]};" for role, pair in colours.items())
    dark = "".join(f"--{role}:{pair[1]};" for role, pair in colours.items())
    return (
        f":root{{color-scheme:light dark;{light}}}\n"
        f"@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
        f"@media print{{:root{{color-scheme:light;{light}}}}}\n" + _RULES.replace("FONT_STACK", FONT_STACK)
    )


_RULES = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 FONT_STACK}
main{max-width:1104px;margin:0 auto;padding:48px 32px 64px}
h1,h2,h3{line-height:1.2;text-wrap:balance;overflow-wrap:anywhere}
h1{font-size:2.1rem;letter-spacing:-.02em;margin:.15em 0 .3em}
h2{font-size:1.35rem;letter-spacing:-.01em;margin:3.2rem 0 1rem;padding-top:1.1rem;
border-top:1px solid var(--grid)}
h3{font-size:1.02rem;margin:0 0 .1rem}
p{margin:.4rem 0;max-width:46rem}
.eyebrow{color:var(--accent);font-weight:600;font-size:.9rem;margin:0}
.lead{font-size:1.12rem;max-width:50rem}
.note,figcaption,footer{color:var(--muted);font-size:.9rem}
.notice{background:var(--warn);border-radius:8px;padding:.6rem .9rem;max-width:none;
overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(205px,1fr));gap:14px;margin:1.8rem 0 0;
padding:0}
.tile{background:var(--surface);border-radius:12px;padding:16px 18px 15px}
.tile dt{color:var(--muted);font-size:.88rem}
.tile dd{margin:0}
.tile .value{font-size:1.85rem;font-weight:650;letter-spacing:-.02em;line-height:1.25;
font-variant-numeric:tabular-nums}
.tile .beside{color:var(--muted);font-size:.88rem;line-height:1.4}
figure{margin:0 0 2.2rem;min-width:0;break-inside:avoid}
figure svg{display:block;width:100%;height:auto;margin-top:.6rem;font-family:inherit;overflow:visible}
figure svg text{font-family:inherit;font-variant-numeric:tabular-nums}
figcaption{max-width:46rem}
.pair{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));column-gap:44px}
.pair figure{display:grid;grid-template-rows:subgrid;grid-row:span 3}
.heading{display:flex;justify-content:space-between;align-items:baseline;gap:1rem}
.heading label{font-size:.9rem;color:var(--muted);flex:none}
.chart{margin-top:.5rem;min-height:120px}
.chart svg.marks{max-width:100%;height:auto;margin:0}
.runs .scroll{max-height:26rem;overflow:auto;border-bottom:1px solid var(--rule)}
.runs thead th{position:sticky;top:0;background:var(--paper);z-index:1}
.runs td:first-child{min-width:15rem;overflow-wrap:anywhere}
.runs td{padding-top:.28rem;padding-bottom:.28rem}
.vega-embed{display:block;width:100%}
.controls{display:flex;flex-wrap:wrap;gap:.5rem 1.4rem;align-items:center;background:var(--surface);border-radius:12px;
padding:.8rem 1.1rem;margin:0 0 1.6rem;position:sticky;top:0;z-index:2}
.controls[hidden],label[hidden]{display:none}
.controls label{display:flex;align-items:center;gap:.45rem;font-size:.93rem}
.controls .note{flex-basis:100%;margin:0;max-width:none;font-size:.83rem}
select,button{font:inherit;color:var(--ink);background:var(--paper);border:1px solid var(--rule);border-radius:6px;
padding:.15rem .4rem}
input{accent-color:var(--accent)}
input[type=range]{width:7rem}
input[type=checkbox]{width:1.05em;height:1.05em;vertical-align:-.12em}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
output{min-width:4rem;color:var(--muted)}
#vg-tooltip-element{position:fixed;z-index:1000;visibility:hidden;pointer-events:none;background:var(--paper);
color:var(--ink);border:1px solid var(--rule);border-radius:8px;padding:.45rem .6rem;font-size:.85rem;line-height:1.35;
max-width:24rem;box-shadow:0 2px 10px rgb(0 0 0/.18)}
#vg-tooltip-element.visible{visibility:visible}
#vg-tooltip-element table{width:auto;font-size:inherit}
#vg-tooltip-element td{border:0;padding:.05rem .5rem .05rem 0;min-width:0;overflow-wrap:anywhere}
#vg-tooltip-element td.key{color:var(--muted);white-space:nowrap}
.columns{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:2rem 44px;align-items:start}
.scroll{overflow-x:auto;margin:.6rem 0 0}
table{border-collapse:collapse;width:100%;font-size:.93rem;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding-bottom:.35rem}
th,td{text-align:left;padding:.42rem 1.1rem .42rem 0;border-bottom:1px solid var(--grid);
vertical-align:top}
th{font-weight:500;color:var(--muted)}
thead th{font-size:.85rem;vertical-align:bottom;border-bottom-color:var(--rule)}
td.number,th.number{text-align:right;white-space:nowrap}
td.number:last-child,th.number:last-child{padding-right:.2rem}
td:not(.number){min-width:7.5rem}
.scroll+.columns{margin-top:1.8rem}
.settings th{width:42%;overflow-wrap:anywhere}
.settings td{overflow-wrap:anywhere}
.best{font-weight:700}
.swatch{display:inline-block;width:.7em;height:.7em;border-radius:50%;margin-right:.5em}
.fills{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:26px 44px;margin:1rem 0 0}
.fill{break-inside:avoid;min-width:0}
.fill p{margin:0 0 .55rem;overflow-wrap:anywhere}
.mask{background:var(--surface);border-bottom:2px solid var(--accent);padding:0 .35em;
border-radius:3px 3px 0 0;font-size:.9em}
.bars{display:grid;grid-template-columns:minmax(4.5rem,max-content) 1fr max-content;gap:.28rem .8rem;
align-items:center;margin:0;font-size:.93rem}
.bars dt{overflow-wrap:anywhere;max-width:11rem}
.bars dd{margin:0;display:contents}
.bars .track{height:10px;border-radius:3px;background:var(--surface)}
.bars .bar{display:block;height:10px;min-width:2px;border-radius:3px;background:var(--series-1)}
.bars .share{font-variant-numeric:tabular-nums;color:var(--muted);text-align:right}
code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'Liberation Mono',monospace;
font-size:.88em}
pre{background:var(--surface);border-radius:8px;padding:.8rem 1rem;white-space:pre-wrap;
overflow-wrap:anywhere}
details{border-top:1px solid var(--grid);padding:.4rem 0}
summary{cursor:pointer;font-weight:600;padding:.35rem 0;overflow-wrap:anywhere}
details h2{border:0;margin:1.2rem 0 .6rem;padding:0;font-size:1.1rem}
footer{margin-top:3.5rem;padding-top:1rem;border-top:1px solid var(--grid)}
@media screen and (max-width:760px){
main{padding:28px 16px 40px}
h1{font-size:1.7rem}
.pair,.columns,.fills{grid-template-columns:minmax(0,1fr)}
.tiles{grid-template-columns:repeat(2,minmax(0,1fr));gap:10px}
.tile{padding:12px 13px}
.tile .value{font-size:1.4rem}
.controls{position:static}
.runs td:first-child{min-width:10rem}
}
@media (pointer:coarse){.mouse{display:none}}
@media print{
body{font-size:10.5pt}
main{max-width:none;padding:0}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
h2{break-after:avoid;margin-top:1.6rem}
details::details-content{content-visibility:visible;display:block;block-size:auto}
.scroll,.runs .scroll{overflow:visible;max-height:none}
.runs td:first-child{min-width:0}
.controls,.heading label,.needs-script,input{display:none}
.tiles{grid-template-columns:repeat(4,minmax(0,1fr))}
.tile .value{font-size:1.3rem}
.pair{column-gap:24px}
}
"""
