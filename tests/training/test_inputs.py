"""Batches: latents kept by frame, text kept by caption, noise and timesteps by the draws."""

import pytest
import torch

from rcv.diffusion import encode_video
from rcv.training import ClipFolder, FinetuneConfig
from rcv.training import inputs as module
from rcv.training.inputs import Inputs
from rcv.training.setup import load_base


@pytest.fixture(scope="module")
def pipeline(base):
    return load_base(FinetuneConfig(base=base))


@pytest.fixture
def make(pipeline, clips):
    def inputs(**settings):
        config = FinetuneConfig(clips=clips, frames=3, **settings)
        folder = ClipFolder(clips, config.frames, (32, 32), config.stride, config.crop)
        return Inputs(pipeline, folder, config, samples_per_step=2, device=torch.device("cpu"))

    return inputs


def equal(one, other):
    return all(torch.equal(mine, theirs) for mine, theirs in zip(one, other, strict=True))


def test_a_batch_has_the_shapes_it_states(make):
    batch = make().batch(0, range(2))
    assert batch.latents.shape == batch.noise.shape == (2, 4, 3, 8, 8)
    assert batch.timesteps.shape == (2,)
    assert batch.text.shape == (2, 12, 16)
    assert batch.latents.dtype == batch.noise.dtype == torch.float32


def test_a_batch_does_not_depend_on_what_came_before(make):
    forward, backward = make(crop="center"), make(crop="center", workers=0)
    first = [forward.batch(step, range(2)) for step in range(8)]
    for step in reversed(range(8)):
        assert equal(backward.batch(step, range(2)), first[step])


def test_samples_of_a_batch_do_not_depend_on_each_other(make):
    inputs = make()
    whole = inputs.batch(3, [0, 1])
    for index in range(2):
        alone = inputs.batch(3, [index])
        assert equal(alone, [tensor[index : index + 1] for tensor in whole])


def test_latents_are_the_means_that_the_vae_gives(make, pipeline):
    inputs = make()
    sample = inputs.clips.sample(0, 0, 0, 2)
    expected = encode_video(pipeline.vae, inputs.clips.pixels(sample)[None], sample=False)
    torch.testing.assert_close(inputs.batch(0, [0]).latents, expected)


def test_every_frame_is_encoded_once(make, monkeypatch):
    encoded = []
    monkeypatch.setattr(
        module,
        "encode_video",
        lambda vae, frames, sample: encoded.append(1) or encode_video(vae, frames, sample=False),
    )
    inputs = make(crop="center")
    for step in range(40):
        inputs.prefetch(step, range(2))
        inputs.batch(step, range(2))
    inputs.close()
    assert len(encoded) == 3 * 7


def test_latents_that_do_not_fit_are_computed_again(make, monkeypatch):
    kept = [make().batch(step, range(2)) for step in range(4)]
    monkeypatch.setattr(module, "LATENT_BYTES", 0)
    inputs = make()
    assert all(equal(inputs.batch(step, range(2)), kept[step]) for step in range(4))
    assert not inputs._latents


def test_draws_differ_between_steps_samples_and_seeds(make):
    inputs, other = make(), make(seed=1)
    noises = [inputs.batch(step, [index]).noise for step in range(3) for index in range(2)]
    noises.append(other.batch(0, [0]).noise)
    assert len({tensor.sum().item() for tensor in noises}) == len(noises)
    times = torch.cat([inputs.batch(step, range(2)).timesteps for step in range(200)])
    assert 0 <= times.min() < 50 and 950 < times.max() < 1000


def test_fixed_batches_cover_clips_and_schedule(make):
    inputs = make()
    batches = list(inputs.fixed_batches(4))
    assert [int(batch.timesteps) for batch in batches] == [125, 375, 625, 875]
    assert all(equal(one, other) for one, other in zip(batches, inputs.fixed_batches(4), strict=True))
    assert not torch.equal(batches[0].text, batches[1].text)
    assert not torch.equal(batches[0].noise, batches[3].noise)


def test_text_is_what_the_pipeline_makes_for_sampling(make, pipeline):
    inputs = make()
    caption = inputs.clips.clips[inputs.clips.sample(0, 0, 0, 2).clip].caption
    expected = pipeline.encode_prompt([caption], torch.device("cpu"), guided=False)[0]
    torch.testing.assert_close(inputs.batch(0, [0]).text, expected)
