"""Finetuning: a text-to-image model learns one motion from a few clips."""

from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from rcv.training.adapter import ADAPTER_FILE, save_adapter
from rcv.training.checkpoint import checkpoint_path, clear_leftovers, newest_checkpoint
from rcv.training.disk import writing
from rcv.training.inputs import ClipLostError
from rcv.training.lock import folder_lock
from rcv.training.log import Evaluation, Record, StepLog, Validation
from rcv.training.memory import explained
from rcv.training.optimizers import check_optimizer
from rcv.training.processes import (
    ProcessLostError,
    any_process,
    check_replicated,
    naming_lost_processes,
    stop_requests,
)
from rcv.training.resume import check_agreement, check_same_run, find_checkpoint
from rcv.training.run_log import RUN, run_log
from rcv.training.setup import EMBEDDED, load_base, open_clips, resolved
from rcv.training.sight import Sight, show_finished
from rcv.training.trackers import check_tracker
from rcv.training.trainer import DivergedError, Trainer
from rcv.training.validation import validation_split
from rcv.version import __version__


@dataclass(frozen=True)
class FinetuneResult:
    """What a run leaves.

    `adapter`: the file. `losses`: of every step. `eval_losses`: {step: mean loss of the same fixed draws}, from step 0,
    before training, to the last (empty with eval_draws 0). `validation_losses`: the same of clips that are not
    trained on (empty without). `step`: that the adapter's weights are of. `seconds_per_step`: the median.
    """

    adapter: Path
    losses: list[float]
    eval_losses: dict[int, float]
    validation_losses: dict[int, float]
    step: int
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
        OUTPUT then holds adapter.safetensors, README.md (a model card), config.yaml (the settings as resolved),
        log.txt, losses.csv, eval_losses.csv, validation_losses.csv, curves.png and checkpoints/; samples/ and
        tensorboard/ if asked for; clips/ if they were rendered.

    Raises
    ------
    ValueError
        The base is of another kind or lacks files; ClipsError for clips; the output holds a run that differs; the
        optimizer or the tracker is not installed; a process would train another run than the first.
    DoesNotFitError
        The plan says that the run needs more memory than there is.
    OutOfMemoryError
        It ran out all the same. The newest checkpoint stands.
    DivergedError
        The loss became NaN or infinite. The newest checkpoint stands.
    OSError
        FolderBusyError: another run writes into the output. CheckpointError, OutputError: it cannot be written.
        ClipLostError: a clip cannot be read any more. ProcessLostError: another process of the run is gone. Before
        these two a checkpoint of the last whole step is written.
    Interrupted
        After Ctrl-C.
    """
    accelerator = Accelerator(
        mixed_precision="no",  # what `accelerate config` says would be autocast
        cpu=not torch.accelerator.is_available(),  # else several processes on CPUs would not know of each other
    )
    check_replicated(accelerator)
    check_optimizer(config)
    check_tracker(config.tracker)
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    # the caller's random state stays as it is
    with torch.random.fork_rng(devices), naming_lost_processes(accelerator):
        return _finetune(config, accelerator, show_progress)


def _finetune(config, accelerator, show_progress):
    main = accelerator.is_main_process
    pipeline = load_base(config)
    settings = resolved(config, pipeline, accelerator.device)
    split = validation_split(settings, open_clips(settings)) if settings.clips is not None else None
    output = settings.output
    with (
        folder_lock(output) if main else nullcontext(),
        run_log(output / "log.txt") if main else nullcontext(),
    ):
        RUN.info("rcv %s on %s", __version__, accelerator.device)
        accelerator.wait_for_everyone()
        if split is None:
            with accelerator.main_process_first():
                split = validation_split(settings, open_clips(settings))
        clips, held_out = split
        with closing(Trainer(settings, accelerator, pipeline, clips, held_out)) as trainer:
            checkpoint = _checkpoint_to_resume(config.resume, trainer, output, accelerator)
            done = None if checkpoint is None else checkpoint.step
            check_agreement(trainer.identity, done, accelerator)
            if checkpoint is not None:
                trainer.restore(checkpoint)
            if main:
                clear_leftovers(output / "checkpoints")
                with writing(output / "config.yaml"):
                    settings.write_yaml(output / "config.yaml")
            with explained(trainer.unet, settings, lambda: newest_checkpoint(output / "checkpoints")):
                losses, evaluations, validations = _run(trainer, pipeline, accelerator, done, show_progress)
            with trainer.result() as step:
                if main:
                    adapter = save_adapter(trainer.unet, output, **_description(trainer, clips, step))
                    show_finished(adapter)
        accelerator.wait_for_everyone()
    seconds = sorted(record.seconds for record in losses)
    return FinetuneResult(
        adapter=output / ADAPTER_FILE,
        losses=[record.loss for record in losses],
        eval_losses=dict(evaluations),
        validation_losses=dict(validations),
        step=step,
        seconds_per_step=seconds[len(seconds) // 2] if seconds else 0.0,
    )


def _run(trainer, pipeline, accelerator, done, show_progress):
    """Train to the end with checkpoints on the way; returns all Records, Evaluations and Validations (main process)."""
    settings = trainer.settings
    folder, main = settings.output / "checkpoints", accelerator.is_main_process
    with ExitStack() as stack:
        stop = stack.enter_context(stop_requests())
        sight = stack.enter_context(Sight(trainer, pipeline, done, show_progress, main, stop.is_set))
        logs = {}
        for kind, (name, measured) in _logs(trainer).items() if main else ():
            if measured:
                logs[kind] = stack.enter_context(closing(StepLog(settings.output / name, kind, done)))
            else:
                (settings.output / name).unlink(missing_ok=True)  # of an earlier run
        losses, evaluations, validations = (
            logs[kind].records if kind in logs else [] for kind in (Record, Evaluation, Validation)
        )
        if done is not None:
            sight.say(f"going on from step {done} of {settings.steps}")

        def evaluate():
            for kind, measure in ((Evaluation, trainer.evaluate), (Validation, trainer.validate)):
                if kind in logs:
                    logs[kind].append(measure())
                    sight.evaluated(logs[kind].records[-1])

        try:
            if done is None:
                evaluate()
            sight.sample(trainer.step)
            over = any_process(trainer.early_stop.over, accelerator)
            while trainer.step < settings.steps and not over:
                with _whole_steps_kept(trainer, folder, accelerator):
                    record = trainer.train()
                if main:
                    logs[Record].append(record)
                sight.trained(record)
                due = trainer.step == settings.steps or trainer.step % settings.checkpoint_every == 0
                if due:  # when stopping too: an evaluation that is left out would not be made up for
                    evaluate()
                with _whole_steps_kept(trainer, folder, accelerator):
                    stopping = any_process(stop.is_set(), accelerator)
                    over = due and any_process(trainer.early_stop.over, accelerator)
                if due or stopping:
                    trainer.save(folder)
                    sight.kept(trainer.step)
                sight.sample(trainer.step, last=over)
                if stopping and trainer.step < settings.steps:
                    kept = checkpoint_path(folder, trainer.step)
                    message = (
                        f"stopped after step {trainer.step} of {settings.steps}, which is kept in {kept}"
                    )
                    sight.say(f"{message}; the same command goes on from there")
                    raise Interrupted(message)
        except DivergedError as error:
            raise DivergedError(f"{error}. {_after_divergence(folder, settings)}") from None
        if main:
            for sentence in _summary(trainer, settings, evaluations):
                sight.say(sentence)
    return losses, evaluations, validations


def _logs(trainer):
    """Return {kind of row: (name of the file, whether the run has such rows)}."""
    evaluates = trainer.settings.eval_draws > 0
    return {
        Record: ("losses.csv", True),
        Evaluation: ("eval_losses.csv", evaluates),
        Validation: ("validation_losses.csv", evaluates and trainer.validation_inputs is not None),
    }


@contextmanager
def _whole_steps_kept(trainer, folder, accelerator):
    """Leave a checkpoint of the steps done if a clip or a process that is gone ends the run inside the block."""
    try:
        with naming_lost_processes(accelerator):
            yield
    except (ClipLostError, ProcessLostError) as error:
        kept = trainer.save(folder)
        told = f". All steps up to {trainer.step} are kept in {kept}" if kept else ""
        raise type(error)(f"{error}{told}; the same command goes on from there") from error


def _summary(trainer, settings, evaluations):
    """Return what a run says at its end, in sentences."""
    lines = []
    if len(evaluations) > 1:
        lines.append(
            f"loss of {settings.eval_draws} fixed draws: {evaluations[0].eval_loss:.4f} before training, "
            f"{evaluations[-1].eval_loss:.4f} after"
        )
    best = trainer.early_stop
    if best.best_step is not None:
        ended = f", which ended the run after step {trainer.step}" if best.over else ""
        lines.append(
            f"validation loss: lowest after step {best.best_step} ({best.best_loss:.4f}), whose weights the adapter "
            f"holds; evaluations since that were no lower: {best.waited}{ended}"
        )
    return lines


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


def _description(trainer, clips, step):
    """What an adapter says of itself besides preset and versions; `step` is the one that its weights are of."""
    settings = trainer.settings
    return {
        "base": settings.base or EMBEDDED,
        "base_digest": trainer.identity["base"],
        "clips": {clip.name: {"caption": clip.caption, "digest": clip.digest} for clip in clips.clips},
        "prompts": sorted(set(clips.captions)),
        "steps": step,
        "seed": settings.seed,
        "frames": settings.frames,
        "window": settings.window,
        "size": list(settings.size),
        "noise": {"strategy": settings.noise, "alpha": settings.noise_alpha, "form": settings.noise_form},
    }
