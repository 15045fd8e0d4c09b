"""One file that a user with a V100 or T4 can send back: are the operations right there, and how fast are they.

Markdown with the data at its end, which `load_report` reads. It names no person, host or folder.
"""

import contextlib
import dataclasses
import getpass
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from rcv import doctor

from . import gpu_suite
from .devices import device_name
from .results import Results, commit, from_dict, load, own_and_rivals, versions

PARTS = "check,ops"
# Around the data.
BEGIN, END = "\n```json\n", "\n```\n"
# What nvidia-smi says of a device that matters for speed; a report asks before and after.
STATE = (
    "driver_version",
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "power.limit",
    "temperature.gpu",
    "ecc.mode.current",
)
EAGER = "reference"
_FOLDERS = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?[\\/](?:[^\s\\/'\":,;()<>]+[\\/])+")


def write_report(path, device, shapes=None, parts=PARTS, budget_s=600):
    """Measure in a process of its own and write the report, whatever becomes of that process.

    Parameters
    ----------
    path : path-like
        The file, ending in .md.
    device : str
        "cuda" or "cpu".
    shapes, parts, budget_s
        As of `gpu_suite`.

    Returns
    -------
    Results
        What the report holds.

    Raises
    ------
    ValueError
        "cuda" where PyTorch finds no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch finds no CUDA device; `rcv doctor` shows what there is")
    arguments = ["--device", device, "--parts", parts, "--budget-s", str(budget_s), "--no-compile"]
    arguments += ["--shapes", shapes] if shapes else []
    with tempfile.TemporaryDirectory() as folder:
        before = device_state(device)
        note = _run([*arguments, "--out", folder])
        measured = (Path(folder) / "results.json").exists()
        results = load(folder) if measured else _nothing(device)
    if note:
        results.notes.append(note)
    data = without_private(
        {
            "results": results.to_dict(),
            "doctor": dataclasses.asdict(doctor.report()),
            "device_state": {"before": before, "after": device_state(device)},
            "architectures": torch.cuda.get_arch_list() if device == "cuda" else [],
        }
    )
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(markdown(data), encoding="utf-8")
    return from_dict(data["results"])


def load_report(path):
    """Return the Results of a report.

    Raises
    ------
    ValueError
        If the file is no report.
    """
    _, begin, rest = Path(path).read_text(encoding="utf-8").partition(BEGIN)
    if not begin:
        raise ValueError(f"{path} is no report of `rcv bench --report`: it holds no data")
    return from_dict(json.loads(rest.partition(END)[0])["results"])


def _run(arguments):
    """Run the suite in a child process; return what a reader must know of its end, empty if it came to it."""
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen([sys.executable, gpu_suite.__file__, *arguments], stderr=errors)
        try:
            status = child.wait()
        except KeyboardInterrupt:
            child.terminate()
            child.wait()
            return "it was interrupted: what follows is what was measured until then"
        errors.seek(0)
        said = errors.read()
    sys.stderr.write(said)
    last = said.strip().splitlines()[-1:] or ["it said nothing"]
    if status < 0:
        return f"{signal.Signals(-status).name} ended the process, what follows is from before: {last[0]}"
    # 1 is also what the suite says of shortfalls
    return f"the process broke off: {last[0]}" if status > 1 or "Traceback" in said else ""


def _nothing(device):
    """The Results of a process that wrote none."""
    device = torch.device(device)
    about = {"name": device_name(device)}
    if device.type == "cuda":
        about["capability"] = ".".join(map(str, torch.cuda.get_device_capability(device)))
    return Results(f"measured on {about['name']}", about, versions(), commit())


def device_state(device):
    """Return {name: value} of what nvidia-smi says of the first device; empty without it."""
    if device != "cuda" or shutil.which("nvidia-smi") is None:
        return {}
    asked = ["nvidia-smi", f"--query-gpu={','.join(STATE)}", "--format=csv,noheader", "--id=0"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(STATE, (value.strip() for value in said.split(",")), strict=False))


def without_private(value):
    """Return data with folders, the user's and the host's name taken out of every text in it."""
    if isinstance(value, dict):
        return {key: without_private(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_private(item) for item in value]
    if not isinstance(value, str):
        return value
    value = _FOLDERS.sub("", value)
    for name in _private_names():
        value = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "...", value)
    return value


def _private_names():
    names = [socket.gethostname(), socket.gethostname().split(".")[0]]
    with contextlib.suppress(KeyError, OSError):  # a user id without a name
        names.append(getpass.getuser())
    return [name for name in names if name and name not in ("localhost", "root")]


def markdown(data):
    """Return the report: a summary to read, and the data that it was made from."""
    results = from_dict(data["results"])
    on_cuda = "capability" in results.device
    lines = [
        f"# rcv on {results.device['name']}",
        "",
        f"Written by `rcv bench --report`, to be attached to an issue of the project. `{results.label}`.",
        "",
    ]
    if not on_cuda:
        lines += ["**This is a report of a CPU: it says nothing of a V100 or T4.**", ""]
    lines += [*(f"* {note}" for note in results.notes), *([""] if results.notes else [])]
    lines += _versions(data)
    lines += ["", "## Correctness", "", *_correctness(results.rows)]
    lines += ["", "## Speed", "", *_speed(results.rows)]
    lines += ["", "## What did not run", "", *_refusals(results)]
    lines += ["", "<details><summary>Data</summary>"]
    return "\n".join(lines) + f"\n{BEGIN}{json.dumps(data, allow_nan=False)}{END}\n</details>\n"


def _versions(data):
    results, versions = data["results"], data["doctor"]["versions"]
    told = {**versions, "CUDA of PyTorch": data["doctor"]["cuda"], "commit": results["commit"]}
    told |= {k: v for k, v in results["device"].items() if k not in ("name", "source", "rates")}
    if data["architectures"]:
        told["PyTorch is built for"] = " ".join(data["architectures"])
    for when, state in data["device_state"].items():
        told |= {f"{name} {when}": value for name, value in state.items()}
    return _table(("", ""), [(name, value) for name, value in told.items() if value is not None])


def _correctness(rows):
    """A row for each operation and backend; what failed below, word for word."""
    judged = [row for row in rows if row.candidate.startswith("rcv:") and row.status != "refused"]
    if not judged:
        return ["Nothing was checked."]
    found = {}
    for row in judged:
        cases = found.setdefault((row.operation, row.candidate.removeprefix("rcv:"), row.dtype), {})
        cases[row.case[:-1]] = cases.get(row.case[:-1], True) and row.status != "failed"
    worst = {}
    for row in judged:
        key = (row.operation, row.candidate.removeprefix("rcv:"), row.dtype)
        worst[key] = max(worst.get(key, 0.0), row.error_ratio or 0.0)
    table = _table(
        ("operation", "backend", "dtype", "cases", "failed", "largest error / allowed"),
        [
            (*key, len(of), sum(not ok for ok in of.values()), f"{worst[key]:.2f}")
            for key, of in found.items()
        ],
    )
    failed = [
        f"* **{row.operation} {row.shape}, {row.candidate}: {row.reason}**"
        for row in judged
        if row.status == "failed"
    ]
    return [*table, *([""] if failed else []), *failed]


def _speed(rows):
    """A row for each case and direction: rcv's fastest, SDPA's fastest backend, xformers and eager PyTorch."""
    lines = []
    for own, rivals in own_and_rivals(rows):
        if own:
            sdpa = next((row for row in rivals if "sdpa:" in row.candidate), None)
            xformers = next((row for row in rivals if "xformers" in row.candidate), None)
            eager = next((row for row in rivals if row.candidate == EAGER), None)
            lines.append(
                (own[0].operation, own[0].direction, own[0].shape, own[0].candidate, _ms(own[0]))
                + tuple(_against(own[0], rival) for rival in (sdpa, xformers, eager))
            )
    head = ("operation", "direction", "case", "rcv's fastest", "ms", "SDPA, ms", "xformers, ms", "eager, ms")
    return _table(head, lines) if lines else ["Nothing was timed."]


def _refusals(results):
    reasons = dict.fromkeys(
        (row.candidate, row.reason) for row in results.rows
        if row.status == "refused" or (row.status == "failed" and not row.candidate.startswith("rcv:"))
    )  # fmt: skip
    lines = [f"* {candidate}: {reason}" for candidate, reason in reasons]
    if results.left_out:
        lines.append(
            f"* left out for time: {len(results.left_out)} pieces of work, {results.left_out[0]} the first"
        )
    return lines or ["Everything ran."]


def _ms(row):
    return f"{row.median_s * 1e3:.3g}"


def _against(own, rival):
    """A rival's time, and how many times faster rcv is."""
    return f"{_ms(rival)} ({rival.median_s / own.median_s:.2f}x)" if rival else ""


def _table(head, rows):
    return [f"| {' | '.join(map(str, cells))} |" for cells in (head, ["---"] * len(head), *rows)]
