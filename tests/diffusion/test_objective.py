"""Training targets and noisy latents against diffusers' own schedulers and their identities."""

import pytest
import torch
from diffusers import DDPMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler

from rcv.diffusion import debiased_loss, diffusion_loss, noisy_latents, training_target
from tests.tiny import tiny_scheduler

SHAPE = (3, 4, 5, 8, 8)


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(SHAPE, generator=generator) for _ in range(2))
    return latents, noise, torch.tensor([0, 417, 999])


def test_noisy_latents_are_the_schedulers(draw):
    scheduler = DDPMScheduler.from_config(tiny_scheduler().config)
    torch.testing.assert_close(noisy_latents(scheduler, *draw), scheduler.add_noise(*draw))


def test_noisy_latents_do_not_depend_on_a_schedulers_scaling(draw):
    ddim = tiny_scheduler()
    euler = EulerDiscreteScheduler.from_config(ddim.config)
    torch.testing.assert_close(noisy_latents(euler, *draw), noisy_latents(ddim, *draw))


def test_each_video_has_its_own_timestep(draw):
    latents, noise, timesteps = draw
    together = noisy_latents(tiny_scheduler(), *draw)
    for k in range(3):
        alone = noisy_latents(tiny_scheduler(), latents[k : k + 1], noise[k : k + 1], timesteps[k])
        assert torch.equal(together[k : k + 1], alone)


def test_targets(draw):
    latents, noise, timesteps = draw
    assert torch.equal(training_target(tiny_scheduler("epsilon"), *draw), noise)
    assert torch.equal(training_target(tiny_scheduler("sample"), *draw), latents)
    v = training_target(tiny_scheduler("v_prediction"), *draw)
    ddpm = DDPMScheduler.from_config(tiny_scheduler("v_prediction").config)
    torch.testing.assert_close(v, ddpm.get_velocity(latents, noise, timesteps))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_perfect_prediction_leads_a_sampler_back_to_the_latents(draw, kind):
    """What training teaches is what sampling reads."""
    latents, noise, _ = draw
    scheduler, timestep = tiny_scheduler(kind), torch.tensor([601])
    scheduler.set_timesteps(10)
    noisy = noisy_latents(scheduler, latents, noise, timestep)
    target = training_target(scheduler, latents, noise, timestep)
    restored = scheduler.step(target, 601, noisy).pred_original_sample
    torch.testing.assert_close(restored, latents, atol=1e-4, rtol=1e-4)


def test_half_precision_is_computed_in_float32(draw):
    latents, noise, timesteps = draw
    latents, noise = latents.half(), noise.half()
    noisy = noisy_latents(tiny_scheduler(), latents, noise, timesteps)
    exact = noisy_latents(tiny_scheduler(), latents.float(), noise.float(), timesteps)
    assert noisy.dtype == torch.float16 and torch.equal(noisy, exact.half())
    target = training_target(tiny_scheduler("v_prediction"), latents, noise, timesteps)
    assert target.dtype == torch.float32


def test_loss_is_the_mean_square_in_float32():
    prediction = torch.full((1, 4, 2, 2, 2), 300.0, dtype=torch.float16, requires_grad=True)
    loss = diffusion_loss(prediction, torch.zeros(1, 4, 2, 2, 2))
    assert loss.dtype == torch.float32 and loss.item() == 90000  # beyond float16
    loss.backward()
    assert torch.isfinite(prediction.grad).all()
    with pytest.raises(ValueError, match=r"prediction has shape .*, expected \(1, 4, 1, 2, 2\)"):
        diffusion_loss(prediction, torch.zeros(1, 4, 1, 2, 2))


def test_the_debiased_loss_is_that_of_a_loop_over_samples_and_frames(draw):
    prediction, target, _ = draw
    anchors, alpha, beta = torch.tensor([4, 0, 2]), 2**0.5, 1
    squares = []
    for sample, anchor in enumerate(anchors.tolist()):
        for frame in range(prediction.shape[2]):
            ours = alpha * prediction[sample, :, frame] - beta * prediction[sample, :, anchor]
            theirs = alpha * target[sample, :, frame] - beta * target[sample, :, anchor]
            squares.append((ours - theirs).square().mean())
    torch.testing.assert_close(debiased_loss(prediction, target, anchors), torch.stack(squares).mean())


def test_the_debiased_loss_weighs_what_frames_share_by_a_sixth(draw):
    """(sqrt(2) - 1)^2 = 0.17 of an error that is the same in all frames, where one of a frame alone counts double."""
    target, anchors = draw[0], torch.tensor([4, 0, 2])
    shared = torch.randn(3, 4, 1, 8, 8, generator=torch.Generator().manual_seed(1)).expand(SHAPE)
    plain = diffusion_loss(target + shared, target).item()
    assert debiased_loss(target + shared, target, anchors).item() == pytest.approx(0.1716 * plain, rel=1e-3)
    alone = torch.zeros(SHAPE)
    alone[:, :, 1] = shared[:, :, 1]
    plain = diffusion_loss(target + alone, target).item()
    assert debiased_loss(target + alone, target, anchors).item() == pytest.approx(2 * plain, rel=1e-3)


def test_anchors_that_are_no_frames_are_refused(draw):
    latents, noise, _ = draw
    with pytest.raises(ValueError, match=r"anchors has shape \(1,\), expected \(3,\)"):
        debiased_loss(latents, noise, torch.tensor([0]))
    with pytest.raises(ValueError, match=r"anchors are \[0, 5, 1\], expected frames 0 to 4"):
        debiased_loss(latents, noise, torch.tensor([0, 5, 1]))


def test_what_cannot_be_trained_is_refused(draw):
    with pytest.raises(ValueError, match="timesteps has 2 entries, expected 1 or one for each of 3"):
        noisy_latents(tiny_scheduler(), *draw[:2], torch.tensor([1, 2]))
    with pytest.raises(ValueError, match=r"FlowMatchEulerDiscreteScheduler.*no alphas_cumprod"):
        noisy_latents(FlowMatchEulerDiscreteScheduler(), *draw)
    flow = tiny_scheduler()
    flow.register_to_config(prediction_type="flow_prediction")
    with pytest.raises(ValueError, match="prediction_type is 'flow_prediction', expected one of epsilon"):
        training_target(flow, *draw)
