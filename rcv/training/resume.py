"""Which checkpoint a run goes on from, and whether it belongs to the same run."""

import logging
import os
import shutil
from pathlib import Path

from accelerate.utils import broadcast_object_list

from rcv.training.checkpoint import MANIFEST, list_checkpoints, load_checkpoint, newest_checkpoint
from rcv.training.config import FinetuneConfig
from rcv.training.sight_config import SightConfig

NEUTRAL = (
    *("output", "resume", "checkpoint_every", "keep_checkpoints", "workers", "eval_draws"),
    *("gradient_checkpointing", "memory", "batch_size", "gradient_accumulation"),
    *("clips", "clip_count", "theme", "exclude_subject", "base", "validation_clips", "skip_broken", "cache"),
    *SightConfig.model_fields,
)
"""Settings that may differ without a word: they do not change what is computed, or are compared by content instead."""

DECISIVE = ("eval_draws", "checkpoint_every")
"""Of these, what decides when a run with patience ends."""

FIXED = ("preset", "optimizer")
"""Settings that a checkpoint's tensors belong to."""

logger = logging.getLogger(__name__)


def find_checkpoint(resume, folder):
    """Return the Checkpoint to go on from, or None for a new run.

    Parameters
    ----------
    resume : str
        "auto" or "latest": the newest complete checkpoint in `folder`, which "latest" requires. "never": none; the
        checkpoints of an earlier run are set aside as `checkpoints.replaced`. Else the path of a checkpoint, of a
        folder of checkpoints, or of a run.
    folder : path
        OUTPUT/checkpoints.
    """
    folder = Path(folder)
    if resume == "never":
        if list_checkpoints(folder):
            aside = folder.with_name(folder.name + ".replaced")
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(folder, aside)
        return None
    if resume in ("auto", "latest"):
        path = newest_checkpoint(folder)
        if path is None and resume == "latest":
            raise ValueError(f"resume: 'latest' was asked for, but {folder} holds no complete checkpoint")
        return None if path is None else load_checkpoint(path)
    given = Path(resume).expanduser()
    path = (
        given
        if (given / MANIFEST).exists()
        else newest_checkpoint(given) or newest_checkpoint(given / "checkpoints")
    )
    if path is None:
        raise ValueError(
            f"resume: {given} holds no complete checkpoint; expected auto, latest, never or the path of one"
        )
    return load_checkpoint(path)


def check_same_run(identity, checkpoint, resume):
    """Raise if a checkpoint belongs to a run of other settings, base or clips; "auto" alone insists on all of them.

    Parameters
    ----------
    identity : dict
        `settings`, `base`, `clips` and `validation_clips` (name to digest) and `samples_per_step` of the present run.
    checkpoint : Checkpoint
        Its state holds the same.
    resume : str
        With "latest" or a path the user asked to go on from this checkpoint: differences are warned of, except
        another preset or optimizer, whose tensors have no place.
    """
    for name in FIXED:
        present, saved = identity["settings"][name], checkpoint.state["settings"].get(name, _default(name))
        if present != saved:
            raise ValueError(
                f"resume: the checkpoint has {name} {saved!r}, this run {present!r}; give this run another output"
            )
    lines = differences(checkpoint.state, identity)
    if not lines:
        return
    listed = "\n".join(f"  {line}" for line in lines)
    if resume == "auto":
        raise ValueError(
            f"output: {identity['settings']['output']} holds step {checkpoint.step} of a run that differs from this "
            f"one (there -> here):\n{listed}\nChoose another output, or resume=latest to go on from it all the same, "
            "or resume=never to start over"
        )
    logger.warning(
        "going on from step %s of a run that differs (there -> here):\n%s", checkpoint.step, listed
    )


def check_agreement(identity, step, accelerator):
    """Raise in every process whose run is not the first one's, as on a machine with other files.

    Parameters
    ----------
    identity : dict
        As in `check_same_run`.
    step : int or None
        That the run goes on from; None for a new run.
    accelerator : accelerate.Accelerator
    """
    if accelerator.num_processes == 1:
        return
    (first,) = broadcast_object_list([{**identity, "step": step}])
    lines = differences(first, identity)
    if first["step"] != step:
        lines.append(f"step that the run goes on from: {first['step']} -> {step} (is the output shared?)")
    if lines:
        listed = "\n".join(f"  {line}" for line in lines)
        raise ValueError(
            f"process {accelerator.process_index} of {accelerator.num_processes} would train another run than the "
            f"first one (first -> this):\n{listed}\nAll need the same base and clips, and an output that all can read"
        )


def differences(saved, present):
    """Return a line for everything that tells two runs apart."""
    lines = []
    neutral = set(NEUTRAL) - (set(DECISIVE) if present["settings"]["patience"] else set())
    for name, value in present["settings"].items():
        before = saved["settings"].get(name, _default(name))  # a checkpoint may be older than a setting
        if name not in neutral and before != value:
            lines.append(f"{name}: {before} -> {value}")
    if saved["base"] != present["base"]:
        lines.append(f"base: another model ({saved['settings']['base']} -> {present['settings']['base']})")
    for kind, group in (("clip", "clips"), ("validation clip", "validation_clips")):
        lines += [f"{kind} {line}" for line in _changed_clips(saved.get(group, {}), present.get(group, {}))]
    if saved["samples_per_step"] != present["samples_per_step"]:
        lines.append(f"samples a step: {saved['samples_per_step']} -> {present['samples_per_step']}")
    return lines


def _changed_clips(saved, present):
    """Return a line for every clip of {name: digest} that was added, removed or changed."""
    lines = []
    for name in sorted(saved.keys() | present.keys()):
        before, now = saved.get(name), present.get(name)
        if before != now:
            what = (
                "added" if before is None else "removed" if now is None else "its content or caption changed"
            )
            lines.append(f"{name}: {what}")
    return lines


def _default(name):
    field = FinetuneConfig.model_fields.get(name)
    return None if field is None else field.default
