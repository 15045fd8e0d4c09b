"""Stable Diffusion 1.4's shape: 860 M parameters with random weights, inflated, run and trained one step on the CPU."""

import resource
import time

import pytest
import torch
from diffusers import UNet2DConditionModel

from benchmarks.training_part import SD14
from rcv.models import VideoUNet


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folder with the 2D UNet in float16 (1.7 GB)."""
    folder = tmp_path_factory.mktemp("sd14") / "unet"
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(SD14)
    assert sum(p.numel() for p in unet.parameters()) == 859_520_964
    unet = unet.half().to_empty(device="cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for name, p in unet.named_parameters():
            norm = p.ndim == 1 and "norm" in name
            p.fill_(1.0 if norm and name.endswith("weight") else 0.0)
            if p.ndim > 1:
                p.normal_(std=p[0].numel() ** -0.5)
    unet.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_stable_diffusion_14_runs_and_trains(saved, dtype, record_property):
    """4 frames of 256x256, which is 32x32 latents; a second step lowers the loss of the first on the same batch."""
    torch.manual_seed(0)
    start = time.monotonic()
    unet = VideoUNet.from_pretrained_2d(saved, preset="recurrent", dtype=dtype)
    loaded = time.monotonic()
    trained = [p for p in unet.parameters() if p.requires_grad]
    assert 90e6 < sum(p.numel() for p in trained) < 130e6
    sample, text = torch.randn(1, 4, 4, 32, 32), torch.randn(1, 77, 768)
    noise, timestep = torch.randn_like(sample), torch.tensor([500])
    with torch.no_grad():
        output = unet(sample, timestep, text).sample
    forward = time.monotonic()
    assert output.shape == sample.shape and torch.isfinite(output).all()

    optimizer = torch.optim.AdamW(trained, lr=3e-5)
    loss = torch.nn.functional.mse_loss(unet(sample, timestep, text).sample.float(), noise)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in trained)
    optimizer.step()
    stepped = time.monotonic()
    with torch.no_grad():
        after = torch.nn.functional.mse_loss(unet(sample, timestep, text).sample.float(), noise)
    assert after < loss
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    record_property(
        "seconds", {"load": loaded - start, "forward": forward - loaded, "step": stepped - forward}
    )
    record_property("peak_gib", peak)
    print(f"{dtype}: load {loaded - start:.1f} s, forward {forward - loaded:.1f} s, "
          f"training step {stepped - forward:.1f} s, peak {peak:.1f} GiB")  # fmt: skip
