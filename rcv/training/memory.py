"""Memory of a run: planned before it starts, explained when it runs out all the same."""

import contextlib
import dataclasses
import traceback

import torch

from rcv.models.recompute import MODES


class DoesNotFitError(ValueError):
    """The plan says that the run needs more memory than there is; the message says what would fit."""


class OutOfMemoryError(MemoryError):
    """Memory ran out in a step; the message names the module, the last checkpoint and what to change."""


def planned(settings, pipeline, device):
    """Return settings whose gradient checkpointing is decided, after a plan where there is a budget for one.

    Parameters
    ----------
    settings : FinetuneConfig
        Resolved but for `gradient_checkpointing`.
    pipeline : VideoPipeline
    device : torch.device

    Raises
    ------
    DoesNotFitError
        If the plan does not fit; with what would.
    """
    from rcv.planning import advice, plan
    from rcv.planning.report import advised, described, gib

    limit, mode = _budget(settings.memory, device), settings.gradient_checkpointing
    if limit is None:
        return settings.model_copy(update={"gradient_checkpointing": "none" if mode == "auto" else mode})
    modes = tuple(MODES) if mode == "auto" else (mode,)
    for mode in modes:
        made = plan("train", _setting(settings, pipeline, mode), limit)
        if made.fits:
            return settings.model_copy(update={"gradient_checkpointing": mode})
    lines = [
        f"{described(made)} needs {gib(made.needed)}, {limit.name} has {gib(limit.total)}.",
        *advised(made, *advice(made)),
        "memory=none starts without a plan.",
    ]
    raise DoesNotFitError(" ".join(lines))


@contextlib.contextmanager
def explained(unet, settings, last_checkpoint):
    """Turn running out of memory inside the block into an OutOfMemoryError that says where and what to try.

    Parameters
    ----------
    unet : VideoUNet
    settings : FinetuneConfig
    last_checkpoint : callable
        Returns the path of the newest checkpoint or None.
    """
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        module = _module_at(error, unet)
        kept = last_checkpoint()
        modes = list(MODES)
        leaner = modes[modes.index(settings.gradient_checkpointing) + 1 :]
        tries = [f"gradient_checkpointing {' or '.join(leaner)}"] if leaner else []
        tries += [
            "fewer frames",
            "a shorter window",
            "a smaller size",
            "batch_size 1 with gradient_accumulation",
        ]
        told = " ".join(str(error).split())[:300]
        raise OutOfMemoryError(
            f"memory ran out in {module or 'the backward'} ({told}). "
            f"{f'The last checkpoint is {kept}' if kept else 'There is no checkpoint yet'}. Try "
            f"{', '.join(tries)}; `rcv plan` says what fits"
        ) from error


def _budget(memory, device):
    from rcv.planning import Budget, budget

    if memory == "none" or (memory == "auto" and device.type != "cuda"):
        return None
    if memory != "auto":
        named = budget(memory)
        return named if device.type == "cuda" else dataclasses.replace(named, capability=None)
    properties = torch.cuda.get_device_properties(device)
    return Budget(properties.name, properties.total_memory, (properties.major, properties.minor))


def _setting(settings, pipeline, mode):
    from rcv.planning import ModelShape, Setting

    largest = max(settings.shapes(), key=lambda bucket: bucket.volume)
    unet = {key: value for key, value in pipeline.unet.config.items() if key != "preset"}
    shape = ModelShape(
        settings.base or "embedded", unet, dict(pipeline.vae.config), pipeline.text_encoder.config.to_dict()
    )
    return Setting(
        shape,
        preset=pipeline.unet.preset,
        frames=largest.frames,
        height=largest.height,
        width=largest.width,
        window=settings.window,
        batch=settings.batch_size,
        precision=settings.precision,
        checkpointing=mode,
        averaged=settings.ema_decay > 0,
    )


def _is_out_of_memory(error):
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _module_at(error, unet):
    """Path of the innermost of the UNet's modules whose code was running, or ""."""
    names = {id(module): name for name, module in unet.named_modules()}
    found = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        found = names.get(id(frame.f_locals.get("self")), "") or found
    return found
