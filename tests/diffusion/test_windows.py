"""Long videos in windows: the spans, the prediction of a single pass, and how drift is held."""

import copy

import numpy as np
import pytest
import torch

from rcv.diffusion import NoiseConfig, VideoPipeline, sample_noise
from rcv.diffusion.windows import Windows, hold_to_first_frame, predict
from rcv.models import get_preset
from rcv.planning.live_bytes import LiveBytes
from rcv.video import write_video
from rcv.world import model_path
from tests.diffusion.conftest import quiet
from tests.models.small import randomise, small_inputs, small_unet


@pytest.fixture(scope="module")
def unet():
    return randomise(small_unet("streaming"))


@pytest.fixture
def streaming(base, unet):
    pipe = quiet(VideoPipeline.from_base(base, preset="streaming"))
    return quiet(type(pipe)(**{**pipe.components, "unet": copy.deepcopy(unet)}))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_spans():
    assert Windows(4).spans(10) == [range(4), range(4, 8), range(8, 10)]
    assert Windows(4).spans(3) == [range(3)]
    assert Windows(1).spans(2) == [range(1), range(1, 2)]
    # the first frame begins every window, so that they have one less of their own
    assert Windows(5, "blend", 2).spans(10) == [range(5), range(3, 7), range(5, 9), range(6, 10)]
    assert Windows(3, "blend", 1).spans(4) == [range(3), range(2, 4)]


@pytest.mark.parametrize("length", range(3, 9))
def test_blended_windows_reach_every_frame(length):
    for frames in range(1, 30):
        for overlap in (None, *range(length - 1)):
            spans = Windows(length, "blend", overlap).spans(frames)
            assert set().union(*spans) == set(range(frames))
            assert all(len(span) <= length - (span.start > 0) for span in spans)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "length is 0, expected a number of frames, 1 or more"),
        ((2, "blend"), "length is 2, expected a number of frames, 3 or more in mode 'blend'"),
        ((2.5,), "length is 2.5"),
        ((4, "blended"), "unknown mode 'blended', did you mean 'blend'"),
        ((4, "carry", 2), "windows in mode 'carry' do not overlap"),
        ((4, "blend", 3), "overlap is 3, expected 0 to 2"),
        ((4, "blend", -1), "overlap is -1"),
    ],
)
def test_windows_that_mean_nothing(arguments, message):
    with pytest.raises(ValueError, match=message):
        Windows(*arguments)


def test_what_a_preset_can():
    assert Windows.for_preset(get_preset("streaming"), 8) == Windows(8, "carry")
    assert Windows.for_preset(get_preset("first-frame"), 8) == Windows(8, "carry")
    assert Windows.for_preset(get_preset("recurrent"), 8) == Windows(8, "blend")
    assert Windows.for_preset(get_preset("published"), 8, overlap=3) == Windows(8, "blend", 3)
    assert Windows.for_preset(get_preset("streaming"), 8, "blend").mode == "blend"


@pytest.mark.parametrize("length", [1, 3, 4])
@torch.no_grad()
def test_carried_windows_predict_what_a_single_pass_predicts(unet, length):
    """Two texts a video, as guidance has them."""
    sample, _, text = small_inputs(batch=2, frames=7)
    texts = torch.cat([text.flip(0), text])
    whole = predict(unet, sample, 500, texts)
    torch.testing.assert_close(whole[:2], unet(sample, 500, text.flip(0)).sample, rtol=0, atol=1e-5)
    torch.testing.assert_close(predict(unet, sample, 500, texts, Windows(length)), whole, rtol=0, atol=1e-5)


@torch.no_grad()
def test_blended_windows_are_weighted_means():
    """By hand, for a preset that looks ahead."""
    unet = randomise(small_unet("tune-a-video"))
    sample, _, text = small_inputs(frames=6)
    got = predict(unet, sample, 500, text, Windows(5, "blend", 2))
    first = unet(sample[:, :, :5], 500, text).sample
    last = unet(sample[:, :, [0, 2, 3, 4, 5]], 500, text).sample[:, :, 1:]
    torch.testing.assert_close(got[:, :, :2], first[:, :, :2], rtol=0, atol=1e-5)
    torch.testing.assert_close(got[:, :, 5], last[:, :, 3], rtol=0, atol=1e-5)
    # frames 2, 3, 4: weights 3, 2, 1 of the first window's 1 2 3 2 1, and 1, 2, 2 of the last one's 1 2 2 1
    for i, (a, b) in zip((2, 3, 4), ((3, 1), (2, 2), (1, 2)), strict=True):
        mean = (a * first[:, :, i] + b * last[:, :, i - 2]) / (a + b)
        torch.testing.assert_close(got[:, :, i], mean, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "DPMSolverMultistepScheduler"])
def test_a_long_video_begins_as_a_shorter_one_and_equals_a_single_pass(streaming, scheduler):
    """Guidance, its rescaling and a scheduler with a history of steps included."""
    import diffusers

    streaming.scheduler = getattr(diffusers, scheduler).from_config(streaming.scheduler.config)
    arguments = {"num_inference_steps": 3, "output_type": "latent", "guidance_rescale": 0.5}
    arguments["noise"] = NoiseConfig("autoregressive", 0.6)

    def frames(count, windows, hold=0.0, **more):
        more = {"generator": generator(), "num_frames": count, **more}
        return streaming("a fox", windows=windows, hold=hold, **arguments, **more).frames

    long = frames(9, Windows(4))
    start = sample_noise((1, 4, 9, 8, 8), arguments["noise"], generator=generator(), window=4)
    single = frames(None, None, latents=start)
    torch.testing.assert_close(long, single, rtol=0, atol=1e-3)
    assert not torch.allclose(long, frames(9, Windows(4), hold=0.5), atol=1e-2)
    arguments["guidance_rescale"] = 0  # which takes the spread of the whole video
    for hold in (0.0, 0.5):
        torch.testing.assert_close(
            frames(9, Windows(4), hold)[:, :, :5], frames(5, Windows(4), hold), rtol=0, atol=1e-3
        )


@pytest.mark.parametrize("strategy", ["independent", "shared", "autoregressive"])
@pytest.mark.parametrize("beyond", ["fresh", "shuffled"])
def test_noise_beyond_a_window(strategy, beyond):
    """It begins as a shorter video's, keeps its marginals and, behind a window, the relation of its frames."""
    config = NoiseConfig(strategy, 0.6, beyond=beyond)
    shape = (2, 4, 22, 16, 16)
    noise = sample_noise(shape, config, generator=generator(), window=8)
    assert noise.shape == shape
    assert torch.equal(noise[:, :, :8], sample_noise((2, 4, 8, 16, 16), config, generator=generator()))
    assert torch.equal(
        noise[:, :, :11], sample_noise((2, 4, 11, 16, 16), config, generator=generator(), window=8)
    )
    assert noise.std(dim=(0, 1, 3, 4)) == pytest.approx(torch.ones(22), abs=0.06)
    across = (noise[:, :, 7] * noise[:, :, 8]).mean()
    if beyond == "fresh" or strategy == "autoregressive":
        assert across == pytest.approx({"independent": 0.0}.get(strategy, 0.6), abs=0.06)
    if strategy == "independent":
        repeats = [(noise[0, :, i] == noise[0, :, j]).all() for i in range(8) for j in range(8, 16)]
        assert sum(repeats) == (8 if beyond == "shuffled" else 0)


def test_shuffled_noise_of_each_video_hangs_on_its_own_generator():
    config = NoiseConfig(beyond="shuffled")
    both = sample_noise((2, 1, 24, 4, 4), config, generator=[generator(1), generator(2)], window=8)
    alone = sample_noise((1, 1, 24, 4, 4), config, generator=[generator(2)], window=8)
    assert torch.equal(both[1:], alone)
    # within quarters of a window
    for start in range(8, 24, 2):
        pair, source = both[0, 0, start : start + 2], both[0, 0, start % 8 : start % 8 + 2]
        assert torch.equal(pair, source) or torch.equal(pair, source.flip(0))


def test_holding_is_adain_that_sets_in_smoothly():
    latents = torch.randn(2, 4, 40, 8, 8, generator=generator())
    latents *= torch.linspace(1, 3, 40)[:, None, None]
    latents += torch.linspace(0, 2, 40)[:, None, None]
    held = latents.clone()
    hold_to_first_frame(held, strength=1.0, progress=1.0, reach=4)
    assert torch.equal(held[:, :, 0], latents[:, :, 0])
    last = held[:, :, -1]
    torch.testing.assert_close(last.mean((2, 3)), latents[:, :, 0].mean((2, 3)), rtol=0, atol=1e-3)
    torch.testing.assert_close(last.std((2, 3)), latents[:, :, 0].std((2, 3)), rtol=1e-3, atol=1e-3)
    share = 0.5 * 0.8 * (1 - np.exp(-6 / 4))
    half = latents.clone()
    hold_to_first_frame(half, strength=0.5, progress=0.8, reach=4)
    x, first = latents[:, :, 6], latents[:, :, 0]
    statistics = [torch.std_mean(t, dim=(2, 3), keepdim=True, correction=0) for t in (x, first)]
    (std, mean), (std_1, mean_1) = statistics
    expected = x + share * ((x - mean) / std * std_1 + mean_1 - x)
    torch.testing.assert_close(half[:, :, 6], expected, rtol=1e-5, atol=1e-5)
    flat = torch.zeros(1, 1, 3, 4, 4)
    hold_to_first_frame(flat, 1.0, 1.0, 4)
    assert torch.equal(flat, torch.zeros_like(flat))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"windows": Windows(4)}, r"windows: a window has 4 frames, but the video 3; leave windows out"),
        ({"windows": 2}, r"windows is 2, expected Windows, such as Windows\(16, 'blend'\)"),
        (
            {"windows": Windows(2)},
            "preset 'tune-a-video' carries no state .*joint GroupNorms.*; mode 'blend' does without a state",
        ),
        ({"hold": 1.5}, "hold is 1.5, expected a number from 0 to 1"),
    ],
)
def test_mistakes(pipe, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipe("a fox", num_frames=3, num_inference_steps=1, **arguments)


def test_frames_one_by_one_are_the_output(streaming):
    arguments = {"num_frames": 3, "num_inference_steps": 1, "generator": generator()}
    latents = streaming("a fox", output_type="latent", **arguments).frames
    arguments["generator"] = generator()
    video = streaming("a fox", output_type="np", **arguments).frames[0]
    frames = streaming.iter_frames(latents[0], decode_chunk_size=2)
    assert iter(frames) is frames
    frames = np.stack(list(frames))
    assert frames.dtype == np.uint8
    assert np.abs(frames / 255 - video).max() <= 0.51 / 255


@pytest.fixture(scope="module")
def embedded():
    return quiet(VideoPipeline.from_base(model_path(), preset="streaming"))


def peak_live_bytes(pipe, frames, path=None, **arguments):
    """Of denoising and, with a path, of decoding and writing as well; weights included."""
    weights = [t for part in (pipe.unet, pipe.vae) for t in (*part.parameters(), *part.buffers())]
    embeds = torch.randn(1, 7, 128, generator=generator())
    with LiveBytes(weights) as alive:
        latents = pipe(
            prompt_embeds=embeds,
            negative_prompt_embeds=embeds,
            num_frames=frames,
            num_inference_steps=1,
            generator=generator(),
            windows=Windows(16),
            output_type="latent",
            **arguments,
        ).frames
        if path is not None:
            write_video(path, pipe.iter_frames(latents[0]))
    return alive.peak


def test_beyond_a_window_memory_grows_by_latents_alone(embedded):
    """By a handful of tensors of the latents' size: noise, latents, predictions."""
    more = peak_live_bytes(embedded, 48, guidance_scale=1) - peak_live_bytes(embedded, 32, guidance_scale=1)
    assert more <= 8 * 16 * (4 * 16 * 16 * 4)


@pytest.mark.slow
def test_the_peak_of_256_frames_is_that_of_32(embedded, tmp_path):
    peaks = [peak_live_bytes(embedded, n, tmp_path / "v.mkv", hold=0.2) for n in (32, 256)]
    assert peaks[1] <= 1.1 * peaks[0]
