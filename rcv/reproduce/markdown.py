"""The report as Markdown."""

from rcv.reproduce.columns import NOTES, cells, described, difference_table, frames_table, headings


def text(config, parts):
    """Return the report of [(Table, findings, plots)] as Markdown; plots are named as files beside it."""
    lines = ["# The paper's comparison, reproduced", ""]
    if not parts:
        lines += ["Nothing is computed yet.", ""]
    for table, sentences, plots in parts:
        study = table.study
        lines += [f"## {study.name}", "", study.about, "", *(f"- {sentence}" for sentence in sentences), ""]
        rows, differences = table.shown()
        lines += _table(headings(), [cells(row) for row in rows])
        if differences:
            lines += ["Differences, paired:", "", *_table(*difference_table(table))]
        if table.over_time:
            lines += ["By frame:", "", *_table(*frames_table(table))]
        lines += [f"![{name}]({study.name}-{name}.svg)" for name in plots]
        lines += ["", *(f"- {what}: {said}" for what, said in described(config, table)), ""]
    return "\n".join([*lines, NOTES, ""])


def _table(head, rows):
    rule = ["---"] * len(head)
    return [*(f"| {' | '.join(row)} |" for row in (head, rule, *rows)), ""]
