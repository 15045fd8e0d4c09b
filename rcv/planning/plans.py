"""Will it fit: the peak memory of training or generation, of what it consists, and what would make it smaller."""

import dataclasses
from collections import Counter
from dataclasses import dataclass

from rcv.models.recompute import MODES
from rcv.planning.allocator import least_bytes, reserved_bytes
from rcv.planning.budget import Budget
from rcv.planning.steps import MOST_FRAMES, Setting, trace_generation, trace_training

KINDS = (
    "frozen weights",
    "trained weights",
    "optimizer",
    "text encoder and VAE",
    "workspaces",
    "inputs",
    "gradients",
    "activations",
    "temporaries",
)
"""For what memory is used, as in `Plan.at_peak` and `Plan.timeline`: what lies still first."""

PASSING = ("gradients", "activations", "temporaries")
LOOK_AHEAD = 16  # frames of the second plan in the search for the most frames
FARTHEST = 8  # times as many frames are tried next: memory comes in steps, which hide a small model's growth


@dataclass(frozen=True)
class Plan:
    """The memory of a setting.

    Attributes
    ----------
    task : str
        "train" or "generate".
    setting : Setting
    budget : Budget
    peak : int
        Bytes of tensors at the peak, as `torch.cuda.max_memory_allocated` counts them.
    reserved : int
        What the caching allocator takes from the device if nothing limits it (on a CPU: the peak).
    needed : int
        The smallest memory of a device that runs it: CUDA context, tensors, and the allocator's unavoidable gaps.
    stage, module : str
        What is at work at the peak.
    at_peak : dict of str to int
        Bytes by kind.
    timeline : list of (str, dict of str to int)
        Stage and bytes by kind, at evenly spaced events.
    """

    task: str
    setting: Setting
    budget: Budget
    peak: int
    reserved: int
    needed: int
    stage: str
    module: str
    at_peak: dict
    timeline: list

    @property
    def resident(self):
        """Bytes that are there before the step begins."""
        return sum(size for kind, size in self.at_peak.items() if kind not in PASSING)

    @property
    def fits(self):
        """Whether the budget holds it."""
        return self.budget.total is None or self.needed <= self.budget.total

    def as_dict(self):
        """Return the plan as JSON can hold it, bytes as integers."""
        setting = {f.name: getattr(self.setting, f.name) for f in dataclasses.fields(self.setting)}
        return {
            "task": self.task,
            **setting,
            "model": self.setting.model.name,
            "preset": self.setting.preset.name,
            "label": "computed",
            "memory": self.budget.name,
            "memory_bytes": self.budget.total,
            "context_bytes": self.budget.context,
            "peak_bytes": self.peak,
            "reserved_bytes": self.reserved,
            "needed_bytes": self.needed,
            "fits": self.fits,
            "stage_at_peak": self.stage,
            "module_at_peak": self.module,
            "bytes_at_peak": self.at_peak,
        }


def plan(task, setting, budget):
    """Return the Plan of a setting on the device of a Budget, whose compute capability replaces the setting's.

    Runs the step on tensors without values: seconds on one core, no GPU.

    Parameters
    ----------
    task : str
        "train" or "generate".
    setting : Setting
    budget : Budget

    Raises
    ------
    ValueError
        If the model cannot be built, or a size does not divide by the VAE's factor.
    """
    factor = setting.model.vae_factor
    if setting.height % factor or setting.width % factor:
        raise ValueError(f"size: {setting.height}x{setting.width} pixels, expected multiples of {factor}")
    setting = dataclasses.replace(setting, capability=budget.capability)
    trace = (trace_training if task == "train" else trace_generation)(setting)
    on_cuda = budget.capability is not None
    at_work = trace.allocations[trace.events[trace.peak_event][0]]
    return Plan(
        task,
        setting,
        budget,
        trace.peak,
        reserved_bytes(trace) if on_cuda else trace.peak,
        budget.context + (least_bytes(trace) if on_cuda else trace.peak),
        at_work.stage,
        at_work.module,
        *_kinds(trace),
    )


def advice(given):
    """Return the Plans that would fit where `given` does not, the cheapest in time first, and the lower bound's.

    Tried in turn are half precision and a batch of one; leaner modes of gradient checkpointing, or smaller chunks for
    the VAE and windows; then fewer frames with the leanest of them.

    Returns
    -------
    fitting : list of Plan
        Empty if nothing helps: then even one frame does not fit.
    leanest : Plan
        Of one frame with the leanest mode: what is in the way if nothing fits.
    """
    changes = _changes(given)
    plans = [
        plan(given.task, dataclasses.replace(given.setting, **change), given.budget) for change in changes
    ]
    fitting = [one for one in plans if one.fits]
    lean = (plans or [given])[-1].setting
    leanest = plan(given.task, dataclasses.replace(lean, frames=1), given.budget)
    if not fitting and leanest.fits:
        fitting = [most_frames(given.task, lean, given.budget, leanest)]
    return fitting, leanest


def _changes(given):
    """Settings to try in place of a plan's, the cheapest in time first; each has those before it that cost none."""
    setting = given.setting
    free = {"precision": "fp16"} if setting.precision == "fp32" and setting.capability is not None else {}
    changes = [free] if free else []
    if given.task == "train":
        modes = list(MODES)
        leaner = modes[modes.index(setting.checkpointing) + 1 :]
        alone = {"batch": 1} if setting.batch > 1 else {}
        changes += [{**free, **alone}] if alone else []
        changes += [{**free, **alone, "checkpointing": mode} for mode in leaner]
    else:
        chunks = [chunk for chunk in (2, 1) if chunk < setting.decode_chunk]
        changes += [{**free, "decode_chunk": chunk} for chunk in chunks]
        small = {**free, "decode_chunk": 1}
        small |= {"batch": 1} if setting.batch > 1 else {}
        changes += [small] if setting.batch > 1 else []
        window = setting.window or setting.frames
        changes += [{**small, "window": shorter} for shorter in (16, 8) if shorter < window]
    return changes


def most_frames(task, setting, budget, least=None):
    """Return the Plan of the most frames that fit, or None if one frame (whose Plan may be given) does not.

    Needed memory grows by nearly the same with every frame, so that a line through two plans tells where to look.
    """
    if budget.total is None:
        raise ValueError("frames: there is no most where memory has no limit")

    def at(frames):
        return plan(task, dataclasses.replace(setting, frames=frames), budget)

    low = least or at(1)
    if not low.fits:
        return None
    high = at(LOOK_AHEAD)
    while high.fits:
        frames = high.setting.frames
        if frames == MOST_FRAMES:
            return high
        farthest = min(FARTHEST * frames, MOST_FRAMES)
        low, high = high, at(min(max(_crossing(low, high, budget.total), frames + 1), farthest))
    while high.setting.frames - low.setting.frames > 1:
        middle = at(
            min(max(_crossing(low, high, budget.total), low.setting.frames + 1), high.setting.frames - 1)
        )
        low, high = (middle, high) if middle.fits else (low, middle)
    return low


def _crossing(one, other, total):
    """The most frames that a line through two Plans lets fit."""
    frames = other.setting.frames - one.setting.frames
    slope = max(1, other.needed - one.needed) / frames
    return int(one.setting.frames + (total - one.needed) / slope)


def _kind(allocation, stages):
    if allocation.kind is not None:
        return allocation.kind

    def outlives(stage):
        begins = next((begin for name, begin in stages if name == stage and begin > allocation.start), None)
        return begins is not None and (allocation.end is None or allocation.end >= begins)

    if allocation.stage == "forward" and outlives("backward"):
        return "activations"
    if allocation.stage == "backward" and outlives("optimizer"):
        return "gradients"
    return "temporaries"


def _kinds(trace, points=400):
    """Bytes by kind at the peak, and the same at the fullest moment of each of `points` parts of the trace."""
    kinds = [_kind(allocation, trace.stages) for allocation in trace.allocations]
    begins = trace.stages[1:]
    first = begins[0][1]
    part = max(1, (len(trace.events) - first) // points)
    now, total, at_peak = Counter(), 0, {}
    fullest, timeline, stage = (0, {}), [], begins.pop(0)[0]
    for event, (number, begins_here) in enumerate(trace.events):
        size = trace.allocations[number].size if begins_here else -trace.allocations[number].size
        now[kinds[number]] += size
        total += size
        if event == trace.peak_event:
            at_peak = _ordered(now)
        if event < first:
            continue
        if total >= fullest[0]:
            fullest = total, _ordered(now)
        while begins and event >= begins[0][1]:
            stage = begins.pop(0)[0]
        if (event - first) % part == part - 1:
            timeline.append((stage, fullest[1]))
            fullest = (0, {})
    if fullest[1]:
        timeline.append((stage, fullest[1]))
    return at_peak, timeline


def _ordered(kinds):
    return {kind: kinds[kind] for kind in KINDS if kinds[kind]}
