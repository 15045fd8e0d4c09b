"""Videos through the VAE: scaling, chunks, generators, where it computes."""

from types import SimpleNamespace

import pytest
import torch

from rcv.diffusion import decode_video, encode_video
from tests.tiny import tiny_vae


@pytest.fixture(scope="module")
def vae():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return tiny_vae().eval().requires_grad_(False)


@pytest.fixture
def frames():
    return torch.rand(2, 5, 3, 32, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_frames_are_encoded_as_images_are(vae, frames):
    latents = encode_video(vae, frames, sample=False)
    assert latents.shape == (2, 4, 5, 8, 6)
    image = vae.encode(frames[1, 3:4]).latent_dist.mean * vae.config.scaling_factor
    torch.testing.assert_close(latents[1:2, :, 3], image)
    back = decode_video(vae, latents)
    assert back.shape == frames.shape
    torch.testing.assert_close(back[1, 3:4], vae.decode(image / vae.config.scaling_factor).sample)


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_chunks_change_nothing(vae, frames, chunk_size):
    seen = []
    hook = vae.encoder.register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    one = encode_video(vae, frames, chunk_size, torch.Generator().manual_seed(3))
    hook.remove()
    assert max(seen) == min(chunk_size, 10) and sum(seen) == 10
    whole = encode_video(vae, frames, 10, torch.Generator().manual_seed(3))
    torch.testing.assert_close(one, whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        decode_video(vae, whole, chunk_size), decode_video(vae, whole, 10), atol=1e-5, rtol=1e-5
    )


def test_draws_follow_the_posterior_and_the_generators(vae, frames):
    def draw(*seeds):
        return encode_video(vae, frames, generator=[torch.Generator().manual_seed(s) for s in seeds])

    assert torch.equal(draw(1, 2), draw(1, 2))
    assert torch.equal(draw(1, 2)[0], draw(1, 9)[0]) and not torch.equal(draw(1, 2)[1], draw(1, 9)[1])
    mean = encode_video(vae, frames, sample=False)
    std = vae.encode(frames.flatten(0, 1)).latent_dist.std.unflatten(0, (2, 5)).transpose(1, 2)
    standard = (draw(1, 2) - mean) / (std * vae.config.scaling_factor)
    assert standard.mean() == pytest.approx(0, abs=0.1) and standard.std() == pytest.approx(1, abs=0.1)


def test_a_shift_factor_is_undone(vae, frames):
    plain = encode_video(vae, frames, sample=False)
    shifted = tiny_vae(shift_factor=0.25, scaling_factor=0.5).eval().requires_grad_(False)
    shifted.load_state_dict(vae.state_dict())
    latents = encode_video(shifted, frames, sample=False)
    torch.testing.assert_close(latents, (plain / vae.config.scaling_factor - 0.25) * 0.5)
    torch.testing.assert_close(decode_video(shifted, latents), decode_video(vae, plain), atol=1e-5, rtol=1e-4)


def test_it_computes_where_an_offload_hook_says(frames):
    """accelerate's hook moves the model at encode and decode, and leaves their arguments where they are."""
    vae = tiny_vae()
    move = SimpleNamespace(
        execution_device=torch.device("meta"), pre_forward=lambda module: module.to("meta")
    )
    vae._hf_hook = move
    assert decode_video(vae, torch.zeros(1, 4, 2, 8, 6)).device.type == "meta"


def test_shapes_are_checked(vae, frames):
    with pytest.raises(ValueError, match=r"frames has shape .*, expected \[B,F,3,H,W\]"):
        encode_video(vae, frames.transpose(1, 2))
    with pytest.raises(ValueError, match=r"latents has shape .*, expected \[B,C,F,h,w\]"):
        decode_video(vae, torch.zeros(1, 4, 8, 8))
    with pytest.raises(ValueError, match="chunk_size is 0"):
        decode_video(vae, torch.zeros(1, 4, 1, 8, 8), 0)
