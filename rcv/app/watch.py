"""What a run's folder says while it trains: how far it is, and its samples."""

from pathlib import Path

from rcv.app.runs import IDLE, STARTING
from rcv.config import read_settings
from rcv.training.log import Record, read_log
from rcv.video import VideoError, probe

SAMPLES = 8


def status(runs, name):
    """Return one or two sentences on how far a run is, as Markdown."""
    folder, state = runs.path(name), runs.state(name)
    records = read_log(folder / "losses.csv", Record)
    done = records[-1].step if records else 0
    steps = _steps(folder)
    if failure := runs.failure(name):
        return f"**Stopped by an error.**\n\n```text\n{failure}\n```"
    if state == IDLE and _is_finished(folder):
        return f"**Finished**: {done} steps. Its adapter can be chosen for generation."
    if state == IDLE:
        return f"**Not running**: {done} of {steps or '?'} steps. *Go on* takes it up from its newest checkpoint."
    if state == STARTING or not records:
        return f"**{state.capitalize()}**: loading the base and checking the clips."
    last = records[-20:]
    seconds = sorted(record.seconds for record in last)[len(last) // 2]
    loss = sum(record.loss for record in last) / len(last)
    words = [
        f"step {done} of {steps or '?'}",
        f"loss {loss:.4f} (mean of {len(last)})",
        f"{seconds:.2f} s a step",
    ]
    if steps:
        words.append(f"{_duration(seconds * (steps - done))} left")
    return f"**{state.capitalize()}**: {', '.join(words)}."


def _is_finished(folder):
    """Whether the adapter, which is written last, belongs to the losses: a run may stop before its last step."""
    adapter, losses = folder / "adapter.safetensors", folder / "losses.csv"
    return losses.is_file() and adapter.is_file() and adapter.stat().st_mtime_ns >= losses.stat().st_mtime_ns


def sample_files(folder):
    """Return (path, time of change) of the newest sample videos of a run, the newest step first."""
    files = [file for kind in ("*.gif", "*.mp4") for file in (folder / "samples").rglob(kind)]
    files = [file for file in files if not file.name.startswith(".")]
    files.sort(key=lambda file: file.name)
    files.sort(key=lambda file: file.parent.name, reverse=True)
    return [(str(file), file.stat().st_mtime_ns) for file in files[:SAMPLES]]


def captioned(files):
    """Return (path, text) of those of the sample files that can be read."""
    found = [Path(file) for file, _ in files]
    return [(str(file), f"{file.parent.name}: {file.stem}") for file in found if _is_whole(file)]


def _is_whole(file):
    try:
        return probe(file).frames > 0
    except (VideoError, OSError):
        return False


def _steps(folder):
    try:
        return read_settings(folder / "config.yaml").get("steps")
    except ValueError:
        return None


def _duration(seconds):
    minutes = seconds / 60
    return (
        f"{seconds:.0f} s"
        if minutes < 2
        else f"{minutes:.0f} min"
        if minutes < 120
        else f"{minutes / 60:.1f} h"
    )
