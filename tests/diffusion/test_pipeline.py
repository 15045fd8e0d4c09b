"""VideoPipeline: arguments, outputs, guidance, callbacks, saving and loading."""

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

from rcv.diffusion import NoiseConfig, VideoPipeline, decode_video
from tests.diffusion.conftest import quiet

FAST = {"num_frames": 2, "num_inference_steps": 2}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def latents_of(pipe, prompt="a fox", seed=0, **arguments):
    arguments = {**FAST, "generator": seeded(seed), "output_type": "latent", **arguments}
    return pipe(prompt, **arguments).frames


@pytest.fixture
def calls(pipe):
    """Arguments of every call of the UNet."""
    seen = []
    pipe.unet.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((args[0], args[1], kwargs["encoder_hidden_states"])),
        with_kwargs=True,
    )
    return seen


def test_one_frame_is_stable_diffusions_image(base):
    """Text, guidance, noise schedule and decoding are those of diffusers' own pipeline."""
    images = quiet(StableDiffusionPipeline.from_pretrained(base, safety_checker=None))
    videos = quiet(VideoPipeline.from_base(base, preset="first-frame"))
    start = torch.randn(2, 4, 8, 8, generator=seeded())
    arguments = {"negative_prompt": ["a bear"] * 2, "num_inference_steps": 4, "guidance_scale": 6.0}
    image = images(["a fox", "a horse"], latents=start, output_type="np", **arguments).images
    video = videos(["a fox", "a horse"], latents=start[:, :, None], output_type="np", **arguments).frames
    np.testing.assert_allclose(video[:, 0], image, atol=1e-4)


def test_output_types_hold_the_same_video(pipe):
    latents = latents_of(pipe, ["a fox", "a bear"])
    assert latents.shape == (2, 4, 2, 8, 8)
    tensors, arrays, images = (
        pipe(["a fox", "a bear"], generator=seeded(), output_type=kind, **FAST).frames
        for kind in ("pt", "np", "pil")
    )
    assert tensors.shape == (2, 2, 3, 32, 32) and arrays.shape == (2, 2, 32, 32, 3)
    expected = (decode_video(pipe.vae, latents) / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(tensors, expected, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(arrays, tensors.permute(0, 1, 3, 4, 2), atol=1e-6)
    assert [len(video) for video in images] == [2, 2] and images[0][0].size == (32, 32)
    assert np.abs(np.asarray(images[1][1]) / 255 - arrays[1, 1]).max() < 0.003


def test_return_dict_false_and_chunks(pipe):
    (chunked,) = pipe(
        "a fox", generator=seeded(), output_type="pt", return_dict=False, decode_chunk_size=1, **FAST
    )
    whole = pipe("a fox", generator=seeded(), output_type="pt", **FAST).frames
    torch.testing.assert_close(chunked, whole, atol=1e-5, rtol=1e-5)


def test_sizes_and_frames(pipe):
    arguments = {"num_inference_steps": 1, "generator": seeded(), "output_type": "np"}
    assert pipe("a fox", num_frames=3, height=40, width=24, **arguments).frames.shape == (1, 3, 40, 24, 3)
    assert pipe("a fox", **arguments).frames.shape == (1, 16, 32, 32, 3)
    assert pipe(
        "a fox", latents=torch.zeros(1, 4, 3, 6, 10), **arguments
    ).frames.shape == (1, 3, 24, 40, 3)  # fmt: skip


def test_a_generator_determines_the_video(pipe):
    first = latents_of(pipe)
    assert torch.equal(first, latents_of(pipe))
    assert not torch.equal(first, latents_of(pipe, seed=1))
    assert not torch.equal(first, latents_of(pipe, "a bear"))
    assert not torch.equal(first, latents_of(pipe, noise=NoiseConfig("shared", 0.9)))


def test_several_videos_of_each_prompt_stand_together(pipe):
    generators = [seeded(seed) for seed in range(4)]
    videos = latents_of(pipe, ["a fox", "a bear"], num_videos_per_prompt=2, generator=generators)
    torch.testing.assert_close(videos[1:2], latents_of(pipe, "a fox", seed=1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(videos[2:3], latents_of(pipe, "a bear", seed=2), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_guidance_is_the_formula(pipe, calls, rescale):
    start = torch.randn(1, 4, 2, 8, 8, generator=seeded())
    arguments = {"latents": start, "num_frames": None, "num_inference_steps": 1}
    guided = latents_of(
        pipe, negative_prompt="a bear", guidance_scale=5.0, guidance_rescale=rescale, **arguments
    )
    assert len(calls) == 1 and len(calls[0][0]) == 2
    timestep = calls[0][1]
    with torch.no_grad():
        texts = pipe.encode_prompt(["a fox"], torch.device("cpu"), True, "a bear")
        conditional, unconditional = (
            pipe.unet(start, timestep, encoder_hidden_states=t).sample for t in texts
        )
    prediction = unconditional + 5 * (conditional - unconditional)
    assert not torch.allclose(prediction, conditional, atol=1e-3)
    if rescale:
        prediction = rescale_noise_cfg(prediction, conditional, rescale)
    pipe.scheduler.set_timesteps(1)
    expected = pipe.scheduler.step(prediction, timestep, start).prev_sample
    torch.testing.assert_close(guided, expected, atol=1e-4, rtol=1e-4)


def test_without_guidance_the_unet_runs_once_and_ignores_the_negative_prompt(pipe, calls):
    plain = latents_of(pipe, guidance_scale=1.0)
    assert [len(sample) for sample, _, _ in calls] == [1, 1]
    assert torch.equal(plain, latents_of(pipe, guidance_scale=1.0, negative_prompt="a bear"))
    assert not torch.equal(plain, latents_of(pipe, guidance_scale=2.0))


def test_embeddings_in_place_of_prompts(pipe):
    text, negative = pipe.encode_prompt(["a fox"], torch.device("cpu"), True, "a bear")
    by_embeddings = latents_of(pipe, None, prompt_embeds=text, negative_prompt_embeds=negative)
    assert torch.equal(by_embeddings, latents_of(pipe, negative_prompt="a bear"))
    assert not torch.equal(by_embeddings, latents_of(pipe))
    pipe.text_encoder = pipe.tokenizer = None
    again = latents_of(pipe, None, prompt_embeds=text, negative_prompt_embeds=negative)
    assert torch.equal(by_embeddings, again)


def test_latents_are_the_start(pipe, calls):
    start = torch.randn(1, 4, 2, 8, 8, generator=seeded(3))
    latents_of(pipe, latents=start, guidance_scale=1.0, num_inference_steps=1)
    assert torch.equal(calls[0][0], start)


def test_a_first_frame_is_noised_to_the_level_of_each_step(pipe, calls):
    first = torch.randn(1, 4, 8, 8, generator=seeded(4))
    start = torch.randn(1, 4, 2, 8, 8, generator=seeded(3))
    result = latents_of(pipe, latents=start, first_frame_latents=first, guidance_scale=1.0)
    for sample, timestep, _ in calls:
        alpha_bar = pipe.scheduler.alphas_cumprod[timestep]
        expected = alpha_bar.sqrt() * first + (1 - alpha_bar).sqrt() * start[:, :, 0]
        torch.testing.assert_close(sample[:, :, 0], expected)
    assert torch.equal(result[:, :, 0], first)
    other = latents_of(pipe, latents=start, first_frame_latents=-first, guidance_scale=1.0)
    assert not torch.allclose(result[:, :, 1], other[:, :, 1], atol=1e-3)


def test_callbacks_see_and_replace_tensors(pipe):
    seen = []

    def zero(pipe, step, timestep, tensors):
        seen.append((step, int(timestep), sorted(tensors)))
        return {"latents": torch.zeros_like(tensors["latents"])} if step == 1 else {}

    names = ["latents", "prompt_embeds"]
    arguments = {"callback_on_step_end": zero, "callback_on_step_end_tensor_inputs": names}
    assert not latents_of(pipe, **arguments).any()
    assert seen == [(0, 501, names), (1, 1, names)]


def test_a_callback_may_interrupt(pipe, calls):
    def stop(pipe, step, timestep, tensors):
        pipe._interrupt = True
        return {}

    latents_of(pipe, callback_on_step_end=stop, num_inference_steps=5)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"height": 30}, "height is 30, expected a multiple of 4 .* such as 28 or 32"),
        ({"width": 0}, "width is 0, expected a multiple of 4"),
        ({"num_frames": 0}, "num_frames is 0, expected a whole number, 1 or more"),
        ({"num_frames": 2.5}, "num_frames is 2.5"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"decode_chunk_size": 0}, "decode_chunk_size is 0"),
        ({"prompt": None}, "either prompt or prompt_embeds, got neither"),
        ({"prompt": []}, "expected a string or a list of strings with at least one"),
        ({"prompt": 7}, "prompt is 7"),
        ({"prompt": ["a", "b"], "negative_prompt": ["c"] * 3}, "negative_prompt has 3 entries, expected one or 2"),
        ({"prompt_embeds": torch.zeros(1, 12, 16)}, "got both"),
        ({"prompt": None, "prompt_embeds": torch.zeros(1, 12, 9)}, r"expected \[1, L, 16\]"),
        ({"guidance_rescale": 2}, "guidance_rescale is 2, expected a number from 0 to 1"),
        ({"output_type": "pill"}, "unknown output_type 'pill', did you mean 'pil'"),
        ({"noise": "shared"}, "noise is 'shared', expected a NoiseConfig"),
        ({"generator": [torch.Generator()] * 2}, "generator is a list of 2, expected one for each of the 1 videos"),
        ({"latents": torch.zeros(1, 4, 8, 8)}, r"latents has shape \(1, 4, 8, 8\), expected \(1, 4, frames"),
        ({"latents": torch.zeros(2, 4, 2, 8, 8)}, "1 videos, 4 channels"),
        ({"latents": torch.zeros(1, 4, 3, 8, 8)}, "num_frames is 2, but latents are for 3; leave num_frames out"),
        ({"first_frame_latents": torch.zeros(1, 4, 2, 8, 8)}, r"first_frame_latents has shape .* \(1, 4, 8, 8\)"),
        ({"callback_on_step_end_tensor_inputs": ["latent"]}, "did you mean 'latents'"),
    ],
)  # fmt: skip
def test_mistakes_are_named(loaded, arguments, message):
    with pytest.raises(ValueError, match=message):
        loaded(**{"prompt": "a fox", **FAST, **arguments})


def test_a_long_prompt_warns_of_what_is_dropped(pipe, monkeypatch):
    from rcv.diffusion import text

    warnings = []
    monkeypatch.setattr(text.logger, "warning", warnings.append)
    latents_of(pipe, "zebra " * 5, num_inference_steps=1)
    assert len(warnings) == 1 and "12 tokens" in warnings[0] and "dropped" in warnings[0]


@pytest.mark.parametrize("preset", ["recurrent", "published"])
def test_saving_and_loading(base, tmp_path, preset):
    saved = quiet(VideoPipeline.from_base(base, preset=preset))
    with torch.no_grad():
        for name, parameter in saved.unet.named_parameters():
            if saved.unet.preset.trains(name):
                parameter += 0.05 * torch.randn(parameter.shape, generator=seeded())
    saved.save_pretrained(tmp_path)
    expected = latents_of(saved)
    for again in (VideoPipeline.from_pretrained(tmp_path), VideoPipeline.from_base(tmp_path)):
        assert again.unet.preset == saved.unet.preset
        assert torch.equal(latents_of(quiet(again)), expected)
    half = VideoPipeline.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert half.unet.dtype == half.vae.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision_stays_close(pipe, dtype):
    expected = latents_of(pipe)
    low = latents_of(pipe.to(dtype))
    assert low.dtype == torch.float32  # latents stay in float32 between steps
    assert (low - expected).norm() < 0.05 * expected.norm()
    frames = pipe("a fox", generator=seeded(), output_type="np", **FAST).frames
    assert frames.dtype == np.float32 and np.isfinite(frames).all()


def test_values_that_are_not_finite_are_reported(pipe):
    with torch.no_grad():
        pipe.unet.conv_out.bias.fill_(float("nan"))
    with pytest.warns(RuntimeWarning, match="UNet's latents hold NaN .* check the weights"):
        frames = pipe("a fox", generator=seeded(), output_type="np", **FAST).frames
    assert not frames.any()


def test_lora_weights_are_loaded_and_unloaded(pipe, tmp_path):
    peft = pytest.importorskip("peft")
    plain = latents_of(pipe)
    pipe.unet.add_adapter(
        peft.LoraConfig(r=2, lora_alpha=2, target_modules=["to_q"], init_lora_weights="gaussian")
    )
    for name, parameter in pipe.unet.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(generator=seeded())
    adapted = latents_of(pipe)
    assert not torch.allclose(adapted, plain, atol=1e-3)
    layers = peft.get_peft_model_state_dict(pipe.unet, adapter_name="default")
    VideoPipeline.save_lora_weights(tmp_path, unet_lora_layers=layers)
    pipe.unet.delete_adapters("default")
    torch.testing.assert_close(latents_of(pipe), plain, atol=1e-5, rtol=1e-5)
    pipe.load_lora_weights(tmp_path)
    torch.testing.assert_close(latents_of(pipe), adapted, atol=1e-4, rtol=1e-4)
