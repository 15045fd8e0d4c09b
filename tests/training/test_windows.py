"""Long samples in windows: the loss of a single pass, truncated gradients, the memory of one window."""

import pytest
import torch
from accelerate import Accelerator

from rcv.diffusion import noisy_latents
from rcv.planning.live_bytes import LiveBytes
from rcv.training import FinetuneConfig, finetune
from rcv.training.clips import ClipFolder
from rcv.training.resume import differences
from rcv.training.setup import load_base, resolved
from rcv.training.trainer import Trainer
from tests.models.small import randomise
from tests.training.clip_files import write_clip


@pytest.fixture(scope="module")
def long_clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long")
    for seed in range(2):
        write_clip(folder, f"{seed}.mkv", frames=33, seed=seed, caption=f"square {seed}", lossless=True)
    return folder


@pytest.fixture
def trainer(base, long_clips, tmp_path):
    """Function of settings: a Trainer whose added weights are away from their start."""

    def trainer(**settings):
        quick = {"base": base, "clips": long_clips, "preset": "streaming", "workers": 0, "eval_draws": 2}
        config = FinetuneConfig(**{**quick, **settings}, output=tmp_path)
        pipeline = load_base(config)
        randomise(pipeline.unet)
        settings = resolved(config, pipeline, torch.device("cpu"))
        clips = ClipFolder(settings.clips, settings.frames, settings.size)
        return Trainer(settings, Accelerator(cpu=True), pipeline, clips)

    return trainer


def gradients_of_a_step(trainer, monkeypatch):
    """Loss and gradients of the first step, before they are clipped."""
    found = {}

    def keep(loss):
        found.update({name: weight.grad.clone() for name, weight in trainer.trained.items()})
        return 0.0

    monkeypatch.setattr(trainer, "_update", keep)
    return trainer.train().loss, found


@pytest.mark.parametrize("window", [1, 4, 7])
def test_windows_have_the_loss_of_a_single_pass_and_truncated_gradients(trainer, monkeypatch, window):
    # the debiased loss takes an anchor of each window: another loss than that of a single pass
    plain = {"frames": 7, "debiased_loss": 0}
    whole, in_windows = trainer(**plain), trainer(**plain, window=window)
    assert in_windows.evaluate().eval_loss == pytest.approx(whole.evaluate().eval_loss, rel=1e-5)
    loss, gradients = gradients_of_a_step(whole, monkeypatch)
    loss_in_windows, truncated = gradients_of_a_step(in_windows, monkeypatch)
    assert loss_in_windows == pytest.approx(loss, rel=1e-5)
    flat = [torch.cat([g.flatten() for g in found.values()]) for found in (gradients, truncated)]
    similarity = torch.cosine_similarity(*flat, dim=0).item()
    if window == 7:
        assert similarity == pytest.approx(1, abs=1e-5)
    else:  # what reaches back beyond a window is missing
        assert 0.7 < similarity < 0.9999
    assert all(gradient.any() for gradient in truncated.values())


def test_the_peak_of_a_step_is_that_of_a_window(trainer):
    """32 frames in windows of 4 beside 24, and 32 at once; weights included.

    24 and not fewer: by then the state holds as many former frames as the temporal attention sees.
    """

    def peak(frames, window):
        one = trainer(frames=frames, window=window)
        one.train()  # the optimizer's state is there from the second step on
        with LiveBytes([*one.unet.parameters(), *one.unet.buffers()]) as alive:
            one.train()
        return alive.peak

    six_windows = peak(24, 4)
    assert peak(32, 4) <= 1.02 * six_windows
    assert peak(32, None) >= 2 * six_windows


def test_random_windows_see_the_first_frame_the_former_one_and_an_empty_memory(trainer, monkeypatch):
    one = trainer(frames=9, window=3, random_window=True, steps=40)
    calls, forward = [], one.unet.forward

    def recorded(sample, timestep, text, state=None, return_state=False):
        calls.append((sample, state, return_state))
        return forward(sample, timestep, text, state=state, return_state=return_state)

    monkeypatch.setattr(one.unet, "forward", recorded)
    starts = set()
    for _ in range(12):
        calls.clear()
        batch = one.inputs.batch(one.step, one._indices()[0])
        (window,) = one._windows()
        starts.add(window.start)
        one.train()
        sample, state, return_state = calls[-1]
        assert sample.shape[2] == 3 and not return_state
        if window.start == 0:
            assert len(calls) == 1 and state is None
            continue
        context, before, _ = calls[0]
        assert before is None
        assert all(not layer.h.any() and layer.recent.shape[1] == 0 for layer in state.layers.values())
        frames = [0] if window.start == 1 else [0, window.start - 1]
        latents, noise = batch.latents[:, :, frames], batch.noise[:, :, frames]
        assert torch.equal(context, noisy_latents(one.scheduler, latents, noise, batch.timesteps))
    assert len(starts) >= 4 and max(starts) <= 6
    # evaluations run all windows, whatever training does
    whole = trainer(frames=9)
    whole.unet.load_state_dict(one.unet.state_dict())
    assert one.evaluate().eval_loss == pytest.approx(whole.evaluate().eval_loss, rel=1e-5)


@pytest.mark.parametrize("random_window", [False, True])
def test_batches_may_be_split(quick, long_clips, tmp_path, random_window):
    settings = {**quick, "clips": long_clips, "preset": "streaming", "frames": 6, "window": 2, "steps": 4}
    settings["random_window"] = random_window
    at_once, in_parts = (
        finetune(FinetuneConfig(**settings, **split, output=tmp_path / str(n)), show_progress=False)
        for n, split in enumerate(({"batch_size": 2}, {"gradient_accumulation": 2}))
    )
    assert at_once.losses == pytest.approx(in_parts.losses, rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 0}, "greater than or equal to 1"),
        (
            {"window": 20},
            "window is 20, more than the 16 frames of a sample; leave window out, or set frames to 20",
        ),
        ({"window": 8}, "preset 'recurrent' carries no state .*later frames.*; preset 'streaming' does"),
        ({"window": 8, "preset": "paper"}, "joint GroupNorms"),
        ({"random_window": True}, "random_window needs a window"),
    ],
)
def test_windows_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        FinetuneConfig(**settings)


def test_a_window_as_long_as_the_sample_needs_no_state():
    assert FinetuneConfig(frames=8, window=8, preset="tune-a-video").window == 8


def test_checkpoints_from_before_a_setting_have_its_default():
    present = {
        "settings": FinetuneConfig().model_dump(mode="json"), "base": "b", "clips": {}, "samples_per_step": 1,
    }  # fmt: skip
    saved = {**present, "settings": dict(present["settings"])}
    del saved["settings"]["random_window"]
    assert differences(saved, present) == []
    present["settings"]["random_window"] = True
    assert differences(saved, present) == ["random_window: False -> True"]
