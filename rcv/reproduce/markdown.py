"""The report as Markdown."""

from rcv.reproduce.columns import NOTES, cells, described, headings, interval_text
from rcv.reproduce.table import COMPARED, SCORES


def text(config, parts):
    """Return the report of [(Table, findings, plots)] as Markdown; plots are named as files beside it."""
    lines = ["# The paper's comparison, reproduced", ""]
    if not parts:
        lines += ["Nothing is computed yet.", ""]
    for table, sentences, plots in parts:
        study = table.study
        lines += [f"## {study.name}", "", study.about, "", *(f"- {sentence}" for sentence in sentences), ""]
        lines += _table(headings(), [cells(row) for row in table.rows if row.cells])
        if any(d["truth"].cells for d in table.differences.values()):
            lines += ["Differences, paired:", ""]
            lines += _table(["arms", *(SCORES[name] for name in COMPARED)], difference_rows(table))
        lines += [f"![{name}]({study.name}-{name}.svg)" for name in plots]
        lines += ["", *(f"- {what}: {said}" for what, said in described(config, table)), ""]
    return "\n".join([*lines, NOTES, ""])


def difference_rows(table):
    """Return the rows of the table of paired differences."""
    return [
        [" - ".join(pair), *(interval_text(d[name], signed=True) for name in COMPARED)]
        for pair, d in table.differences.items()
        if d["truth"].cells
    ]


def _table(head, rows):
    rule = ["---"] * len(head)
    return [*(f"| {' | '.join(row)} |" for row in (head, rule, *rows)), ""]
