"""One resumable training loop for all stages: AdamW, warm-up and cool-down, averaged weights, log and checkpoints."""

import time
from contextlib import nullcontext

import torch

from rcv.training.checkpoint import clear_leftovers, load_checkpoint, newest_checkpoint, save_checkpoint
from rcv.training.log import Record, StepLog

COOL_DOWN = 0.4
"""Share of the steps in which the learning rate falls linearly to 0."""


def learning_rate_at(step, steps, highest):
    """Return the learning rate of step `step` (from 0): linear warm-up, constant, linear cool-down."""
    warm_up = max(1, min(200, steps // 10))
    left = (steps - step) / max(1, round(COOL_DOWN * steps))
    return highest * min(1.0, (step + 1) / warm_up, left)


def train(name, modules, loss_at, *, folder, steps, learning_rate, config, ema_decay=0.0, progress=None):
    """Train `modules` for `steps` steps; goes on from the newest checkpoint of the stage.

    Parameters
    ----------
    name : str
        The stage: checkpoints go to FOLDER/checkpoints/NAME, losses to FOLDER/NAME.csv.
    modules : torch.nn.Module
        In float32. Holds the averaged weights afterwards if `ema_decay` is not 0.
    loss_at : callable
        loss_at(step, generator) -> scalar. Computed under bfloat16 autocast on a CPU that has it natively; `generator`
        is seeded by the step, so that a run that was killed draws what it would have drawn.
    progress : callable, optional
        Called with (name, step, steps, loss).
    """
    checkpoints = folder / "checkpoints" / name
    optimizer = torch.optim.AdamW(
        modules.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    average = {key: value.detach().clone() for key, value in modules.state_dict().items()}
    step = 0
    clear_leftovers(checkpoints)
    newest = newest_checkpoint(checkpoints)
    if newest is not None:
        checkpoint = load_checkpoint(newest)
        step = checkpoint.step
        modules.load_state_dict(checkpoint.tensors["weights"])
        average = checkpoint.tensors["average"]
        _restore(optimizer, checkpoint.tensors["optimizer"])
    log = StepLog(folder / f"{name}.csv", Record, step)
    modules.train()
    try:
        while step < steps:
            started = time.perf_counter()
            rate = learning_rate_at(step, steps, learning_rate)
            for group in optimizer.param_groups:
                group["lr"] = rate
            generator = torch.Generator().manual_seed((config.seed * 1_000_003 + step) * 4 + len(name))
            torch.manual_seed(generator.initial_seed())
            with precision():
                loss = loss_at(step, generator)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(modules.parameters(), 1.0).item()
            if norm != norm or norm == float("inf"):
                raise ValueError(
                    f"stage {name}: the gradients of step {step + 1} are not finite; lower its learning rate"
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            decay = min(ema_decay, (1 + step) / (10 + step))
            _average(average, modules.state_dict(), decay)
            log.append(Record(step, loss.item(), rate, norm, round(time.perf_counter() - started, 4)))
            if progress is not None:
                progress(name, step, steps, loss.item())
            if step % config.checkpoint_every == 0 or step == steps:
                tensors = {
                    "weights": modules.state_dict(),
                    "average": average,
                    "optimizer": _tensors(optimizer),
                }
                save_checkpoint(checkpoints, step, tensors, {"stage": name}, keep=1)
    finally:
        log.close()
    if ema_decay:
        modules.load_state_dict(average)
    modules.eval()


def precision():
    """Return the autocast of the machine: bfloat16 where the CPU computes in it, else none."""
    native = (
        torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
    return torch.autocast("cpu", torch.bfloat16) if native else nullcontext()


def _average(average, weights, decay):
    floats = [key for key in average if average[key].is_floating_point()]
    torch._foreach_lerp_([average[key] for key in floats], [weights[key] for key in floats], 1 - decay)


def _tensors(optimizer):
    state = optimizer.state_dict()["state"]
    return {f"{number}/{key}": value for number, entry in state.items() for key, value in entry.items()}


def _restore(optimizer, tensors):
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {}
    for name, tensor in tensors.items():
        number, key = name.split("/")
        if tensor.ndim:
            # the fused step pairs elements by their place in memory
            tensor = torch.empty_like(parameters[int(number)]).copy_(tensor)
        state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
