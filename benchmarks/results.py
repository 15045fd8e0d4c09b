"""What the suite found: its schema, its file, and its tables."""

import dataclasses
import json
import os
import platform
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import torch

from .cases import Case
from .targets import GIB, TARGETS

STATUSES = ("timed", "passed", "failed", "refused")
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Row:
    """One candidate on one case in one direction.

    Attributes
    ----------
    operation, frames, tokens, heads, head_dim, videos, table, activation, dtype
        The case; of a training step, `tokens` are those of a latent frame, heads and head_dim 0.
    direction : str
        "forward", "backward", "both" (correctness) or "step".
    candidate : str
    status : str
        "timed"; "passed" (correctness alone); "failed" (wrong, or raised); "refused" (its own limits exclude this).
    reason : str
        Why it failed or was refused, or what its figure counts besides the operation.
    median_s, q1_s, q3_s : float or None
        Seconds: median and quartiles.
    bound_s : float or None
        Seconds that no program can beat on this device.
    bound_kind : str
        "matrix", "exp" or "memory".
    share : float or None
        bound_s / median_s.
    error_ratio : float or None
        Largest error over the error allowed; at most 1 passes.
    peak_bytes : int or None
        Peak of device memory of a training step, as the allocator counts it.
    """

    operation: str
    frames: int
    tokens: int
    dtype: str
    direction: str
    candidate: str
    status: str
    heads: int = 0
    head_dim: int = 0
    videos: int = 1
    table: str = ""
    activation: str = ""
    reason: str = ""
    median_s: float | None = None
    q1_s: float | None = None
    q3_s: float | None = None
    bound_s: float | None = None
    bound_kind: str = ""
    share: float | None = None
    error_ratio: float | None = None
    peak_bytes: int | None = None

    @staticmethod
    def of(case: Case, direction, candidate, status, **values):
        """Return the Row of a Case."""
        return Row(direction=direction, candidate=candidate, status=status, **vars(case), **values)

    @property
    def case(self):
        """What rows of one comparison have in common."""
        return tuple(getattr(self, f.name) for f in dataclasses.fields(Case)) + (self.direction,)

    @property
    def shape(self):
        """The case as one readable word."""
        sizes = f"B{self.videos} F{self.frames} N{self.tokens}"
        width = f" H{self.heads} D{self.head_dim}" if self.heads else ""
        return f"{self.table or self.activation} {sizes}{width} {self.dtype}".strip()


@dataclass
class Results:
    """A run of the suite.

    Attributes
    ----------
    label : str
        "measured on DEVICE".
    device : dict
        Name, capability, memory, peak rates and where these are from.
    versions : dict of str to (str or None)
    commit : str or None
        Git commit, with "+" where files differ from it.
    rows : list of Row
    left_out : list of str
        What the time budget did not reach.
    notes : list of str
        What a reader must know of this run.
    done : list of str
        Work that came to its end, so that a run that lost its device goes on behind it.
    """

    label: str
    device: dict
    versions: dict
    commit: str | None
    rows: list = field(default_factory=list)
    left_out: list = field(default_factory=list)
    notes: list = field(default_factory=list)
    done: list = field(default_factory=list)

    def save(self, folder):
        """Write results.json and results.md into a folder, each whole or not at all."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in (("results.json", self.to_json()), ("results.md", markdown(self))):
            partial = folder / f".{name}"
            partial.write_text(text)
            os.replace(partial, folder / name)

    def to_dict(self):
        """Return all of it as JSON's types; NaN and infinities as None."""
        return {**vars(self), "rows": [_finite(dataclasses.asdict(row)) for row in self.rows]}

    def to_json(self):
        """Return `to_dict` as text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)


def load(folder):
    """Return the Results that `Results.save` wrote into a folder."""
    return from_dict(json.loads((Path(folder) / "results.json").read_text()))


def from_dict(data):
    """Return the Results of what their JSON holds."""
    return Results(**{**data, "rows": [Row(**row) for row in data["rows"]]})


def versions():
    """Return the versions of Python, PyTorch, Triton and CUDA; None for what is missing."""
    try:
        import triton
    except ImportError:
        triton = None
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": getattr(triton, "__version__", None),
        "cuda": torch.version.cuda,
    }


def commit():
    """Return the commit of this checkout, with "+" where tracked files differ from it, or None without git."""
    if not (ROOT / ".git").exists():  # installed: a repository further up is another one
        return None
    try:
        run = [
            subprocess.run(
                ["git", *command], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20
            )
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return run[0].stdout.strip() + ("+" if run[1].stdout.strip() else "")


def own_and_rivals(rows):
    """Return (rcv's timed rows, its rivals' timed rows) of every case, each the fastest first."""
    groups = {}
    for row in rows:
        if row.status == "timed":
            own, rivals = groups.setdefault(row.case, ([], []))
            (own if row.candidate.startswith("rcv:") else rivals).append(row)
    for group in groups.values():
        for side in group:
            side.sort(key=lambda row: row.median_s)
    return list(groups.values())


def shortfalls(results):
    """Return one line for each target missed and for each of rcv's own backends that failed."""
    lines = [
        f"{row.candidate} failed {row.operation} {row.shape} ({row.direction}): {row.reason}"
        for row in results.rows
        if row.candidate.startswith("rcv:") and row.status == "failed"
    ]
    on_cuda = "capability" in results.device
    for target in TARGETS:
        about = [row for row in results.rows if target.is_about(row, on_cuda)]
        if target.least_speedup is not None:
            lines += _slower(target, about)
        elif target.least_share is not None:
            lines += _far_from_bound(target, about)
        else:
            lines += _over(target, about)
    return lines


def markdown(results):
    """Return the tables of a run: what fell short, times by operation and direction, training, what was left out."""
    rates = ", ".join(f"{name} {value:.3g}" for name, value in results.device.get("rates", {}).items())
    facts = {k: v for k, v in results.device.items() if k not in ("name", "source", "rates")}
    told = [*results.versions.items(), *facts.items()]
    lines = [
        f"# {results.label}",
        "",
        f"Commit {results.commit or 'unknown'}; "
        + ", ".join(f"{name} {value or 'none'}" for name, value in told)
        + f". Peak rates ({results.device.get('source')}): {rates}.",
        "",
        *(f"* {note}" for note in results.notes),
    ]
    lines += _section("What falls short", [f"* {line}" for line in shortfalls(results)] or ["Nothing."])
    checked = [row for row in results.rows if row.direction == "both"]
    counts = {s: sum(row.status == s for row in checked) for s in ("passed", "failed")}
    lines += _section(
        "Correctness", [f"{counts['passed']} passed without a figure, {counts['failed']} failed."]
    )
    timed = [row for row in results.rows if row.status == "timed"]
    for operation, direction in dict.fromkeys((row.operation, row.direction) for row in timed):
        of_it = [row for row in timed if (row.operation, row.direction) == (operation, direction)]
        lines += _section(f"{operation}, {direction}", _table(of_it))
    failed = dict.fromkeys(
        f"* {row.operation} {row.shape}, {row.direction}, {row.candidate}: {row.reason}"
        for row in results.rows
        if row.status == "failed" and not row.candidate.startswith("rcv:")
    )
    lines += _section("Rivals that failed", list(failed) or ["None."])
    refused = dict.fromkeys(
        f"* {row.candidate}: {row.reason}" for row in results.rows if row.status == "refused"
    )
    lines += _section("Not run", list(refused) or ["Nothing was refused."])
    lines += _section("Left out for time", [f"* {name}" for name in results.left_out] or ["Nothing."])
    return "\n".join(lines) + "\n"


def _section(title, lines):
    return ["", f"## {title}", "", *lines]


def _table(rows):
    head = ["case", "candidate", "median ms", "quartiles", "bound ms", "share", "of rcv's best", "error"]
    head += ["peak GiB"] if any(row.peak_bytes for row in rows) else []
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        own = [r.median_s for r in rows if r.case == row.case and r.candidate.startswith("rcv:")]
        cells = [
            row.shape,
            row.candidate,
            _ms(row.median_s),
            f"{_ms(row.q1_s)} to {_ms(row.q3_s)}",
            f"{_ms(row.bound_s)} ({row.bound_kind})" if row.bound_s else "",
            f"{row.share:.0%}" if row.share else "",
            f"{row.median_s / min(own):.2f}x" if own else "",
            "" if row.error_ratio is None else f"{row.error_ratio:.2f}",
        ]
        if "peak GiB" in head:
            cells.append("" if row.peak_bytes is None else f"{row.peak_bytes / GIB:.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _slower(target, rows):
    for own, rivals in own_and_rivals(rows):
        rivals = [row for row in rivals if target.is_against(row)]
        if not own or not rivals:
            continue
        mine, rival = own[0], rivals[0]
        speedup = rival.median_s / mine.median_s
        # Quartiles that overlap show noise, not a loss.
        if speedup < target.least_speedup and mine.q1_s * target.least_speedup > rival.q3_s:
            yield (
                f"not {target.name} ({target.least_speedup:g}x asked): {mine.operation} {mine.direction} {mine.shape}: "
                f"{mine.candidate} {_ms(mine.median_s)} ms, {rival.candidate} {_ms(rival.median_s)} ms ({speedup:.2f}x)"
            )


def _far_from_bound(target, rows):
    for own, _ in own_and_rivals(rows):
        if own and own[0].share and own[0].share < target.least_share:
            yield (
                f"not {target.name} ({target.least_share:g} asked): {own[0].operation} {own[0].direction} "
                f"{own[0].shape}: {own[0].candidate} {own[0].share:.2f} of the bound"
            )


def _over(target, rows):
    peaks = [row.peak_bytes for row in rows if row.peak_bytes is not None and row.status == "timed"]
    if rows and (not peaks or min(peaks) > target.most_bytes):
        found = f"{min(peaks) / GIB:.2f} GiB at least" if peaks else "no such step came to its end"
        yield f"not {target.name}: {found}, at most {target.most_bytes / GIB:.2f} GiB wanted"


def _ms(seconds):
    return "" if seconds is None else f"{seconds * 1e3:.3g}"


def _finite(values):
    return {k: None if isinstance(v, float) and not abs(v) < float("inf") else v for k, v in values.items()}
