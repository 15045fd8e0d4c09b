"""The report of what has been computed: one page that needs no network, and the same as Markdown."""

from rcv.reproduce.arms import chosen_study
from rcv.reproduce.config import STUDIES
from rcv.reproduce.findings import findings
from rcv.reproduce.html import page
from rcv.reproduce.markdown import text
from rcv.reproduce.pictures import shown
from rcv.reproduce.plots import study_plots
from rcv.reproduce.table import study_table
from rcv.training.disk import writing
from rcv.video import replacing


def write_report(config):
    """Write report.html and report.md (with its plots beside it) into `config.output`; returns the two paths.

    The studies asked for appear with the chosen themes, seeds and arms, and every other one that has cells of its own.

    Parameters
    ----------
    config : ReproduceConfig
    """
    everything = config.model_copy(update={"themes": [], "seeds": [], "arms": []})
    parts, seen = [], set()
    for name in dict.fromkeys((*config.studies(), *STUDIES)):
        table = study_table(config, chosen_study(config if name in config.studies() else everything, name))
        own = {cell.folder for cell in table.cells.values()} - seen
        if own:
            seen |= own
            parts.append((table, findings(table), study_plots(table)))
    html, markdown = config.output / "report.html", config.output / "report.md"
    with writing(config.output):
        _write(html, page(config, [(*part, shown(part[0])) for part in parts]))
        for table, _, plots in parts:
            for name, svg in plots.items():
                _write(config.output / f"{table.study.name}-{name}.svg", svg)
        _write(markdown, text(config, parts))
    return html, markdown


def _write(path, content):
    with replacing(path) as part:
        part.write_text(content, encoding="utf-8")
