"""The report as one HTML page that asks for nothing: plots, pictures and clips are data URIs."""

import base64
from html import escape

from rcv.reproduce.columns import NOTES, cells, described, difference_table, frames_table, headings

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto; padding: 0 1rem; color: #222; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 12.5px; margin: 1rem 0; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #e5e5e5; text-align: left; white-space: nowrap; }
caption { text-align: left; font-weight: 600; }
th { background: #f5f6f8; }
th:first-child, td:first-child { position: sticky; left: 0; background: #fff; }
tr.own td { font-weight: 600; background: #fdf1f2; }
img.plot { max-width: 100%; display: block; margin: 1rem 0; }
.clips { display: flex; flex-wrap: wrap; gap: .8rem; }
figure { margin: 0; }
figcaption { font-size: 12px; max-width: 128px; }
img.pixels { image-rendering: pixelated; display: block; width: 128px; }
.sheet img.pixels { width: min(1024px, 100%); }
.sheet figcaption { max-width: none; }
details { margin: .6rem 0; }
dl { display: grid; grid-template-columns: max-content auto; gap: .2rem 1rem; font-size: 13px; }
dt { color: #666; } dd { margin: 0; overflow-wrap: anywhere; }
"""


def page(config, parts):
    """Return the page of [(Table, findings, plots, [Shown])]."""
    body = "".join(_study(config, *part) for part in parts) or "<p>Nothing is computed yet.</p>"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>rcv: the paper's comparison</title><style>{STYLE}</style></head><body>"
        f"<h1>The paper's comparison, reproduced</h1>{body}<p>{escape(NOTES)}</p></body></html>\n"
    )


def _study(config, table, sentences, plots, shows):
    study = table.study
    own = {pair[0] for pair in study.pairs}
    rows, differences = table.shown()
    parts = [
        f'<h2 id="{study.name}">{study.name}</h2><p>{escape(study.about)}</p>',
        "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>",
        _table("Means with 95 % intervals", headings(), [(row.arm in own, cells(row)) for row in rows]),
    ]
    if differences:
        head, compared = difference_table(table)
        parts.append(_table("Differences, paired", head, [(False, row) for row in compared]))
    if table.over_time:
        head, quarters = frames_table(table)
        parts.append(_table("By frame", head, [(False, row) for row in quarters]))
    for name, svg in plots.items():
        source = base64.b64encode(svg.encode()).decode()
        alt = f"{study.name}: {name}"
        parts.append(f'<img class="plot" alt="{alt}" src="data:image/svg+xml;base64,{source}">')
    parts += [_shown(show) for show in shows]
    said = "".join(
        f"<dt>{escape(what)}</dt><dd>{escape(text)}</dd>" for what, text in described(config, table)
    )
    return "".join([*parts, f"<dl>{said}</dl>"])


def _table(caption, head, rows):
    top = "".join(f"<th>{escape(text)}</th>" for text in head)
    body = ""
    for own, row in rows:
        start = '<tr class="own">' if own else "<tr>"
        body += start + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>"
    return (
        f'<div class="wide"><table><caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _shown(show):
    clips = "".join(_figure(arm, uri) for arm, uri in show.clips.items())
    sheets = "".join(_figure(arm, uri, "sheet") for arm, uri in show.sheets.items())
    return (
        f"<h3>{escape(show.theme)}</h3><p>“{escape(show.caption)}”, seed {show.seed}</p>"
        f'<div class="clips">{clips}</div><details><summary>frame by frame</summary>{sheets}</details>'
    )


def _figure(arm, uri, kind=""):
    return (
        f'<figure class="{kind}"><img class="pixels" alt="{escape(arm)}" src="{uri}">'
        f"<figcaption>{escape(arm)}</figcaption></figure>"
    )
