"""Noise over frames: variances and correlations against the formulas, generators, bad arguments."""

import math

import pytest
import torch

from rcv.diffusion import NoiseConfig, sample_noise

MANY = (64, 4, 6, 16, 16)  # 65 536 draws a frame: standard errors of about 0.004
CASES = [
    (strategy, form, alpha)
    for strategy in ("independent", "shared", "autoregressive")
    for form in ("variance_preserving", "paper")
    for alpha in (0.0, 0.2, 0.5, 0.8, 1.0)
]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def expected_covariance(strategy, form, alpha, frames):
    """Covariance matrix of the frames by mixing matrices: noise = M e, so that it is M M^T."""
    sources = frames + 1  # one a frame, and one in common
    mixing = torch.zeros(frames, sources, dtype=torch.float64)
    for i in range(frames):
        if strategy == "independent":
            mixing[i, i] = 1
        elif strategy == "shared":
            paper = form == "paper"
            mixing[i, i] = 1 - alpha if paper else math.sqrt(1 - alpha)
            mixing[i, frames] = alpha if paper else math.sqrt(alpha)
        elif i == 0:
            mixing[i, i] = 1
        else:
            mixing[i] = alpha * mixing[i - 1]
            mixing[i, i] = 1 - alpha if form == "paper" else math.sqrt(1 - alpha**2)
    return mixing @ mixing.T


@pytest.mark.parametrize(("strategy", "form", "alpha"), CASES)
def test_covariance_of_frames(strategy, form, alpha):
    config = NoiseConfig(strategy, alpha, form)
    noise = sample_noise(MANY, config, generator=generator())
    frames = noise.transpose(0, 2).flatten(1).double()
    covariance = frames @ frames.T / frames.shape[1]
    expected = expected_covariance(strategy, form, alpha, MANY[2])
    torch.testing.assert_close(covariance, expected, atol=0.02, rtol=0)
    assert abs(noise.mean()) < 0.02
    torch.testing.assert_close(
        torch.tensor(config.marginal_std(MANY[2]), dtype=torch.float64), expected.diagonal().sqrt()
    )


def test_positions_of_a_frame_are_independent():
    noise = sample_noise(MANY, NoiseConfig("autoregressive", 0.8), generator=generator())
    for neighbours in (
        noise[..., 1:] * noise[..., :-1],
        noise[..., 1:, :] * noise[..., :-1, :],
        noise[:, 1:] * noise[:, :-1],
        noise[1:] * noise[:-1],
    ):
        assert abs(neighbours.mean()) < 0.02


def test_the_papers_autoregressive_noise_loses_its_spread():
    config = NoiseConfig("autoregressive", 0.8, "paper")
    last = sample_noise((64, 4, 32, 8, 8), config, generator=generator())[:, :, -1]
    assert last.std() == pytest.approx(math.sqrt((1 - 0.8) / (1 + 0.8)), abs=0.01)  # 0.333
    preserving = NoiseConfig("autoregressive", 0.8)
    assert sample_noise((64, 4, 32, 8, 8), preserving, generator=generator())[
        :, :, -1
    ].std() == pytest.approx(1, abs=0.02)


def test_alpha_one_repeats_a_frame_and_zero_is_independent():
    for strategy in ("shared", "autoregressive"):
        same = sample_noise((1, 4, 5, 8, 8), NoiseConfig(strategy, 1.0), generator=generator())
        assert torch.equal(same, same[:, :, :1].expand_as(same))
        free = sample_noise((1, 4, 5, 8, 8), NoiseConfig(strategy, 0.0), generator=generator())
        assert torch.equal(free, sample_noise((1, 4, 5, 8, 8), NoiseConfig(), generator=generator()))


@pytest.mark.parametrize("strategy", ["independent", "shared", "autoregressive"])
def test_generators(strategy):
    config, shape = NoiseConfig(strategy, 0.4), (2, 4, 3, 8, 8)
    first = sample_noise(shape, config, generator=generator(1))
    assert torch.equal(first, sample_noise(shape, config, generator=generator(1)))
    assert not torch.equal(first, sample_noise(shape, config, generator=generator(2)))
    one_each = sample_noise(shape, config, generator=[generator(1), generator(2)])
    swapped = sample_noise(shape, config, generator=[generator(2), generator(1)])
    assert torch.equal(one_each, swapped.flip(0))
    assert torch.equal(one_each[:1], sample_noise((1, *shape[1:]), config, generator=[generator(1)]))


def test_lower_precision_is_the_same_noise_rounded():
    config, shape = NoiseConfig("autoregressive", 0.9), (1, 4, 16, 8, 8)
    full = sample_noise(shape, config, generator=generator())
    half = sample_noise(shape, config, generator=generator(), dtype=torch.float16)
    assert half.dtype == torch.float16 and torch.equal(half, full.half())


def test_draws_without_a_generator_differ():
    assert not torch.equal(sample_noise((1, 1, 1, 4, 4)), sample_noise((1, 1, 1, 4, 4)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strategy": "shard"}, "unknown strategy 'shard', did you mean 'shared'"),
        ({"form": "papers"}, "unknown form 'papers', did you mean 'paper'"),
        ({"alpha": 1.5}, r"alpha must lie in \[0, 1\], got 1.5"),
        ({"alpha": float("nan")}, "alpha"),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        NoiseConfig(**arguments)


def test_bad_shapes_and_lists():
    with pytest.raises(ValueError, match=r"shape is \(4, 3, 8, 8\), expected \(B, C, F, H, W\)"):
        sample_noise((4, 3, 8, 8))
    with pytest.raises(ValueError, match="positive"):
        sample_noise((1, 4, 0, 8, 8))
    with pytest.raises(ValueError, match="list of 1, expected one for each of the 2 videos"):
        sample_noise((2, 4, 3, 8, 8), generator=[generator()])
