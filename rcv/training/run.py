"""Finetuning: a text-to-image model learns one motion from a few clips."""

import signal
import threading
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from rcv.training.adapter import ADAPTER_FILE, save_adapter
from rcv.training.checkpoint import checkpoint_path, clear_leftovers, newest_checkpoint
from rcv.training.disk import writing
from rcv.training.lock import folder_lock
from rcv.training.log import Evaluation, ProgressLine, Record, StepLog
from rcv.training.memory import explained
from rcv.training.resume import check_same_run, find_checkpoint
from rcv.training.setup import EMBEDDED, load_base, open_clips, resolved
from rcv.training.trainer import DivergedError, Trainer


@dataclass(frozen=True)
class FinetuneResult:
    """What a run leaves.

    `adapter`: the file. `losses`: of every step. `eval_losses`: {step: mean loss of the same fixed draws}, from step 0,
    before training, to the last (empty with eval_draws 0). `seconds_per_step`: the median.
    """

    adapter: Path
    losses: list[float]
    eval_losses: dict[int, float]
    seconds_per_step: float


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM: the run stopped after a whole step and wrote a checkpoint."""


def finetune(config, show_progress=True):
    """Finetune a base model on clips and write the trained weights.

    Nothing is written before the base is loaded and every clip is checked. The run can be stopped at any moment and
    goes on from its newest checkpoint when started again, bit for bit as if it had not stopped (on one device).

    Parameters
    ----------
    config : FinetuneConfig
    show_progress : bool
        Whether to draw a bar (or lines, without a terminal) on standard error.

    Returns
    -------
    FinetuneResult
        OUTPUT then holds adapter.safetensors, config.yaml (the settings as resolved), losses.csv, eval_losses.csv and
        checkpoints/; clips/ if they were rendered.

    Raises
    ------
    ValueError
        The base is of another kind or lacks files; ClipsError for clips; the output holds a run that differs.
    DoesNotFitError
        The plan says that the run needs more memory than there is.
    OutOfMemoryError
        It ran out all the same. The newest checkpoint stands.
    DivergedError
        The loss became NaN or infinite. The newest checkpoint stands.
    OSError
        FolderBusyError: another run writes into the output. CheckpointError, OutputError: it cannot be written.
    Interrupted
        After Ctrl-C.
    """
    accelerator = Accelerator(
        mixed_precision="no",  # what `accelerate config` says would be autocast
        cpu=not torch.accelerator.is_available(),  # else several processes on CPUs would not know of each other
    )
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(devices):  # the caller's random state stays as it is
        return _finetune(config, accelerator, show_progress)


def _finetune(config, accelerator, show_progress):
    main = accelerator.is_main_process
    pipeline = load_base(config)
    settings = resolved(config, pipeline, accelerator.device)
    clips = open_clips(settings) if settings.clips is not None else None
    output = settings.output
    with folder_lock(output) if main else nullcontext():
        accelerator.wait_for_everyone()
        if clips is None:
            with accelerator.main_process_first():
                clips = open_clips(settings)
        with closing(Trainer(settings, accelerator, pipeline, clips)) as trainer:
            checkpoint = _checkpoint_to_resume(config.resume, trainer, output, accelerator)
            if checkpoint is not None:
                trainer.restore(checkpoint)
            if main:
                clear_leftovers(output / "checkpoints")
                with writing(output / "config.yaml"):
                    settings.write_yaml(output / "config.yaml")
            done = None if checkpoint is None else checkpoint.step
            with explained(trainer.unet, settings, lambda: newest_checkpoint(output / "checkpoints")):
                losses, evaluations = _run(trainer, settings, accelerator, done, show_progress)
            if main:
                save_adapter(trainer.unet, output, **_description(settings, clips))
        accelerator.wait_for_everyone()
    seconds = sorted(record.seconds for record in losses)
    return FinetuneResult(
        adapter=output / ADAPTER_FILE,
        losses=[record.loss for record in losses],
        eval_losses=dict(evaluations),
        seconds_per_step=seconds[len(seconds) // 2] if seconds else 0.0,
    )


def _run(trainer, settings, accelerator, done, show_progress):
    """Train to the last step with checkpoints on the way; returns all Records and Evaluations (in the main process)."""
    folder, main = settings.output / "checkpoints", accelerator.is_main_process
    losses, evaluations = [], []
    with ExitStack() as stack:
        line = stack.enter_context(ProgressLine(settings.steps, trainer.step, show_progress and main))
        stop = stack.enter_context(_stop_requests())
        if main:
            losses_log = stack.enter_context(closing(StepLog(settings.output / "losses.csv", Record, done)))
            eval_log = stack.enter_context(
                closing(StepLog(settings.output / "eval_losses.csv", Evaluation, done))
            )
            losses, evaluations = losses_log.records, eval_log.records
        if done is not None:
            line.say(f"going on from step {done} of {settings.steps}")

        def evaluate():
            if main and settings.eval_draws:
                eval_log.append(trainer.evaluate())

        try:
            if done is None:
                evaluate()
            while trainer.step < settings.steps:
                record = trainer.train()
                if main:
                    losses_log.append(record)
                line.update(record)
                last = trainer.step == settings.steps
                stopping = _any_process(stop.is_set(), accelerator) and not last
                if last or (trainer.step % settings.checkpoint_every == 0 and not stopping):
                    evaluate()
                if stopping or last or trainer.step % settings.checkpoint_every == 0:
                    trainer.save(folder)
                if stopping:
                    kept = checkpoint_path(folder, trainer.step)
                    message = (
                        f"stopped after step {trainer.step} of {settings.steps}, which is kept in {kept}"
                    )
                    line.say(f"{message}; the same command goes on from there")
                    raise Interrupted(message)
        except DivergedError as error:
            raise DivergedError(f"{error}. {_after_divergence(folder, settings)}") from None
        if len(evaluations) > 1:
            line.say(
                f"loss of {settings.eval_draws} fixed draws: {evaluations[0].eval_loss:.4f} before training, "
                f"{evaluations[-1].eval_loss:.4f} after"
            )
    return losses, evaluations


def _after_divergence(folder, settings):
    last = newest_checkpoint(folder)
    remains = f"The last good checkpoint is {last}" if last else "There is no checkpoint yet"
    precision = ", precision bf16 or fp32" if settings.precision == "fp16" else ""
    way = f" and resume={last} (or an earlier one)" if last else ""
    return (
        f"{remains}. Try a lower learning rate (it was {settings.learning_rate:g}), a longer warm-up, a lower "
        f"max_grad_norm{precision}{way}"
    )


def _checkpoint_to_resume(resume, trainer, output, accelerator):
    """The Checkpoint to go on from or None. The main process looks first: "never" moves the folder."""
    with accelerator.main_process_first():
        checkpoint = find_checkpoint(
            resume if accelerator.is_main_process or resume != "never" else "auto", output / "checkpoints"
        )
    if checkpoint is not None:
        check_same_run(trainer.identity, checkpoint, resume)
    elif resume == "auto" and (output / ADAPTER_FILE).exists():
        raise ValueError(
            f"output: {output} holds the adapter of an earlier run and no checkpoint of it; choose another output, or "
            "resume=never to replace it"
        )
    return checkpoint


def _description(settings, clips):
    """What an adapter says of itself besides preset and versions."""
    return {
        "base": settings.base or EMBEDDED,
        "prompts": sorted(set(clips.captions)),
        "steps": settings.steps,
        "seed": settings.seed,
        "frames": settings.frames,
        "window": settings.window,
        "size": list(settings.size),
        "noise": {"strategy": settings.noise, "alpha": settings.noise_alpha, "form": settings.noise_form},
    }


@contextmanager
def _stop_requests():
    """An event that Ctrl-C or SIGTERM sets, so that a step is never cut in half; a second one stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number, frame):
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, request) for number in signals]
    try:
        yield stop
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _any_process(flag, accelerator):
    """Whether `flag` is set in any process, known to all of them."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum").item())
