"""What happens to a run from outside: a full disk, clips and threads that go, losses that are no numbers."""

import contextlib
import math
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from rcv.training import ClipFolder, ClipLostError, DivergedError, FinetuneConfig, finetune, read_adapter
from rcv.training import trainer as trainer_module
from rcv.training.checkpoint import CheckpointError, list_checkpoints, load_checkpoint, newest_checkpoint
from rcv.training.trainer import Trainer


def run(settings, output, **changes):
    return finetune(FinetuneConfig(**{**settings, **changes}, output=output), show_progress=False)


@contextlib.contextmanager
def no_file_beyond(size):
    """Let the system refuse to write files beyond `size` bytes, in the middle of a write, as a full disk does."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def at_step(monkeypatch, step, action):
    """Do something before the step numbered `step` (from 0)."""
    train = Trainer.train

    def train_after_action(self):
        if self.step == step:
            action()
        return train(self)

    monkeypatch.setattr(Trainer, "train", train_after_action)


def test_a_disk_that_fills_up_loses_nothing_before_it(quick, tmp_path, monkeypatch):
    settings = {**quick, "checkpoint_every": 2, "hold_out": 1, "patience": 9, "ema_decay": 0.9}
    whole = run(settings, tmp_path / "whole")
    with monkeypatch.context() as patch, contextlib.ExitStack() as full:
        at_step(patch, 3, lambda: full.enter_context(no_file_beyond(20_000)))
        with pytest.raises(CheckpointError, match=r"step 4 could not be written.*step-000002. Make room"):
            run(settings, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-000002"]
    assert not (tmp_path / "run" / "adapter.safetensors").exists()
    resumed = run(settings, tmp_path / "run")
    assert (resumed.losses, resumed.validation_losses) == (whole.losses, whole.validation_losses)
    one, other = (read_adapter(result.adapter)[0] for result in (resumed, whole))
    assert all(torch.equal(one[name], other[name]) for name in other)


@pytest.mark.parametrize(("value", "precision"), [(math.inf, "fp32"), (math.nan, "fp16")])
def test_a_loss_that_is_no_number_leaves_the_last_good_checkpoint(
    quick, tmp_path, monkeypatch, precision, value
):
    true_loss, bad = trainer_module.diffusion_loss, []
    monkeypatch.setattr(trainer_module, "diffusion_loss", lambda *t: true_loss(*t) * (value if bad else 1.0))
    at_step(monkeypatch, 3, lambda: bad.append(True))
    with pytest.raises(
        DivergedError, match=rf"loss of step 4 is {value}\. The last good.*step-000002.*lower learning rate"
    ) as said:
        run(quick, tmp_path / "run", checkpoint_every=2, eval_draws=0, precision=precision)
    assert ("precision bf16 or fp32" in str(said.value)) == (precision == "fp16")
    (kept, *_) = list_checkpoints(tmp_path / "run" / "checkpoints")
    assert kept.name == "step-000002"
    weights = load_checkpoint(kept).tensors["weights"].values()
    assert all(torch.isfinite(weight).all() for weight in weights)
    assert not (tmp_path / "run" / "adapter.safetensors").exists()


def test_gradients_that_overflow_float16_lower_the_scale_until_it_has_no_use(quick, tmp_path, monkeypatch):
    """The loss stays finite: steps are left out, weights stay, and the 17th halving of 65536 says so."""
    scaled = []

    def unscale(self, optimizer):
        for group in optimizer.param_groups:
            for weight in group["params"]:
                weight.grad.fill_(math.inf)
        scaled.append(self.get_scale())
        return true_unscale(self, optimizer)

    true_unscale = torch.amp.GradScaler.unscale_
    monkeypatch.setattr(torch.amp.GradScaler, "unscale_", unscale)
    with pytest.raises(DivergedError, match="overflow float16 at any loss scale"):
        run({**quick, "precision": "fp16", "eval_draws": 0}, tmp_path / "run", steps=40, checkpoint_every=5)
    assert scaled[:3] == [65536.0, 32768.0, 16384.0] and len(scaled) == 18
    folder = tmp_path / "run" / "checkpoints"
    first, *_, last = reversed(
        [load_checkpoint(path).tensors["weights"] for path in list_checkpoints(folder)]
    )
    assert all(torch.equal(first[name], last[name]) for name in first)


def test_a_worker_that_dies_is_replaced(quick, clips, tmp_path, monkeypatch):
    """Whatever ends a thread, even a request to exit: the one that waits for the sample decodes it."""
    pixels, died = ClipFolder.pixels, []

    def die_in_workers(self, sample):
        if threading.current_thread() is not threading.main_thread():
            died.append(sample)
            raise SystemExit
        return pixels(self, sample)

    expected = run(quick, tmp_path / "whole").losses
    monkeypatch.setattr(ClipFolder, "pixels", die_in_workers)
    assert run(quick, tmp_path / "run").losses == expected
    assert died


def test_no_more_threads_are_no_end_of_a_run(quick, tmp_path, monkeypatch):
    class Refusing(ThreadPoolExecutor):
        def submit(self, *_):
            raise RuntimeError("can't start new thread")

    expected = run(quick, tmp_path / "whole").losses
    monkeypatch.setattr("rcv.training.inputs.ThreadPoolExecutor", Refusing)
    assert run(quick, tmp_path / "run").losses == expected


def test_a_clip_that_goes_in_the_middle_of_a_run_is_named_and_every_step_kept(
    quick, clips, tmp_path, monkeypatch
):
    """Nothing is kept in memory, so that every sample is decoded when it is needed."""
    folder = shutil.copytree(clips, tmp_path / "clips")
    monkeypatch.setattr(ClipFolder.__init__, "__defaults__", (1, "random", 0))
    monkeypatch.setattr("rcv.training.inputs.LATENT_BYTES", 0)
    settings = {**quick, "clips": folder, "checkpoint_every": 100, "crop": "center"}
    whole = run(settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda: [file.rename(file.with_suffix(".gone")) for file in folder.glob("*.mp4")])
        with pytest.raises(
            ClipLostError,
            match=r"clip ..mp4 cannot be read any more .*All steps up to [345] are kept in .*step-00000",
        ):
            run(settings, tmp_path / "run")
    for file in folder.glob("*.gone"):
        file.rename(file.with_suffix(".mp4"))
    assert newest_checkpoint(tmp_path / "run" / "checkpoints") is not None
    assert run(settings, tmp_path / "run").losses == whole.losses
