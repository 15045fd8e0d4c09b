"""Write what was measured into the README and the docs: `python -m benchmarks.publish`.

`benchmarks/results/` holds one JSON file a device, date and program: of the suite (`NAME.json`, with `rows`) and of
`benchmarks.train_step` (`NAME-steps.json`, with `steps`). From these, and from nothing else, come the table between the
markers of README.md, and docs/benchmarks.md with its plots. docs/targets.md and docs/computed.md come from the code.
"""

import hashlib
import json
from pathlib import Path

from . import computed
from .plots import write_plots
from .programs import Setting
from .results import ROOT, Results, Row, markdown
from .steps import Spread, StepResult
from .targets import as_markdown
from .train_step import growth_table, step_table

RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def measured(folder=RESULTS):
    """Return {name: what the JSON file NAME holds}, the newest name first."""
    files = sorted(Path(folder).glob("*.json"), key=lambda file: file.stem.split("-20")[-1], reverse=True)
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def readme_section(records):
    """Return the README's table: the newest end-to-end measurement of every device."""
    lines, devices = [], set()
    for name, record in records.items():
        if "steps" not in record or record["device"] in devices:
            continue
        devices.add(record["device"])
        lines += [
            f"`{record['label']}`, {record['threads']} threads, {_described(record['setting'])}. "
            f"Medians (quartiles); [more](docs/benchmarks.md#{name}).",
            "",
            step_table(_steps(record["steps"])),
            "",
        ]
    return "\n".join(lines)


def with_section(readme, section):
    """Return the README with `section` between its markers.

    Raises
    ------
    ValueError
        If the markers are missing.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md lacks the markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{section}{END}{after}"


def page(records):
    """Return docs/benchmarks.md: every measurement, whole."""
    lines = [
        "# Measurements",
        "",
        "Written by `python -m benchmarks.publish` from the files of `benchmarks/results/`. Every figure was gated: a "
        "program that differs from the float64 reference, or from the program it claims to equal, is not timed. What "
        "is asked of the kernels is in [targets](targets.md).",
        "",
    ]
    for name, record in records.items():
        lines += [f"## {name}", ""]
        lines += _steps_page(record) if "steps" in record else _suite_page(name, record)
    return "\n".join(lines).rstrip() + "\n"


def plots_of(name, record, folder):
    """Write a suite's plots into `folder` as NAME-KIND.png, the record's fingerprint inside; return their paths."""
    paths = []
    for path in write_plots(_results(record), folder, {"Source": fingerprint(record)}):
        paths.append(path.replace(path.with_name(f"{name}-{path.name}")))
    return paths


def fingerprint(record):
    """Return the digest of a record that its plots carry."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def main():
    """Rewrite README.md, docs/benchmarks.md, its plots, docs/targets.md and docs/computed.md."""
    records = measured()
    for name, record in records.items():
        if "rows" in record:
            plots_of(name, record, ROOT / "docs" / "benchmarks")
    for path, text in pages(records).items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")


def pages(records):
    """Return {path: text} of every page that comes from the records."""
    readme = ROOT / "README.md"
    return {
        readme: with_section(readme.read_text(encoding="utf-8"), readme_section(records)),
        ROOT / "docs" / "benchmarks.md": page(records),
        ROOT / "docs" / "targets.md": as_markdown(),
        ROOT / "docs" / "computed.md": computed.page(),
    }


def _steps_page(record):
    lines = [
        f"`{record['label']}`, commit {record['commit']}, {record['threads']} threads, {record['clock']} clock; "
        + ", ".join(f"{k} {v or 'none'}" for k, v in record["versions"].items())
        + f". {_described(record['setting'])}.",
        "",
        step_table(_steps(record["steps"])),
        "",
    ]
    if record.get("growth"):
        pairs = [(Setting(**g["setting"]), _steps(g["steps"])) for g in record["growth"]]
        lines += [growth_table(pairs), ""]
    return lines


def _suite_page(name, record):
    tables = markdown(_results(record)).split("\n", 2)[2]
    kinds = [kind for kind in ("bars", "frames", "roofline") if _is_plotted(name, kind)]
    plots = [f"![{kind} of {name}](benchmarks/{name}-{kind}.png)" for kind in kinds]
    return [f"`{record['label']}`.", "", *plots, "", tables.replace("\n## ", "\n### "), ""]


def _is_plotted(name, kind):
    return (ROOT / "docs" / "benchmarks" / f"{name}-{kind}.png").exists()


def _described(setting):
    widths = ", ".join(map(str, setting["channels"]))
    return (
        f"{setting['frames']} frames of {setting['height']}x{setting['width']} latents, widths ({widths}), "
        f"{setting['layers']} layers a block, {setting['heads']} heads"
    )


def _steps(records):
    return [
        StepResult(**{**r, "train": _spread(r["train"]), "denoise": _spread(r["denoise"])}) for r in records
    ]


def _spread(record):
    return record and Spread(**{**record, "samples": tuple(record["samples"])})


def _results(record):
    return Results(**{**record, "rows": [Row(**row) for row in record["rows"]]})


if __name__ == "__main__":
    main()
