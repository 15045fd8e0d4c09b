"""Compare VideoUNet with recorded outputs of a published program: `python -m tests.parity FILE.safetensors [...]`.

A recording is FILE.safetensors with FILE.json beside it: configuration, preset and weights of the published model, one
call (with its gradients where the program can run a backward), a guided DDIM sampling and a DDIM inversion. For each
recorded part the largest error relative to the largest value is printed. The exit status is 1 beyond the limits.
"""

import json
import sys
from pathlib import Path

import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from safetensors.torch import load_file

from rcv.models import VideoUNet

LIMITS = {"output": 5e-6, "gradients": 1e-5, "sampled": 1e-5, "inverted": 1e-5}

# A gradient that vanishes by construction is rounding noise on both sides: nothing is measured against less than this
# share of the largest gradient.
SMALLEST_GRADIENT = 1e-3


def parity_errors(file):
    """Return {part: largest relative error} of the recording `file`, for the parts of LIMITS that it holds."""
    file = Path(file)
    record = load_file(file)
    meta = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    unet = VideoUNet.from_config(meta["config"], preset=meta["preset"]).eval()
    unet.load_state_dict(_under("state.", record))
    ddim = {**meta.get("ddim", {}), **_under("ddim.", record)}
    errors = call_errors(unet, record)
    with torch.no_grad():
        if "sampled" in ddim:
            errors["sampled"] = relative_error(sample_ddim(unet, ddim), ddim["sampled"])
        if "inverted" in ddim:
            errors["inverted"] = relative_error(invert_ddim(unet, ddim), ddim["inverted"])
    return errors


def call_errors(unet, record):
    """Return the errors of the recorded call's output and, where recorded, of its gradients."""
    expected = _under("grad.", record)
    if "grad_sample" in record:
        expected["sample"] = record["grad_sample"]
    leaves = {**dict(unet.named_parameters()), "sample": record["sample"]}
    for name in expected:
        leaves[name].requires_grad_()
    arguments = {name: record[name] for name in ("class_labels",) if name in record}
    with torch.set_grad_enabled("grad_output" in record):
        output = unet(
            record["sample"], record["timestep"], record["encoder_hidden_states"], **arguments
        ).sample
    errors = {"output": relative_error(output.detach(), record["output"])}
    if "grad_output" in record:
        output.backward(record["grad_output"])
        floor = SMALLEST_GRADIENT * max(value.abs().max().item() for value in expected.values())
        errors["gradients"] = max(
            relative_error(leaves[k].grad, value, floor) for k, value in expected.items()
        )
        record["sample"].requires_grad_(False)
    return errors


def sample_ddim(unet, ddim):
    """Return ddim["latents"] denoised with classifier-free guidance."""
    scheduler = DDIMScheduler.from_config(ddim["scheduler"])
    scheduler.set_timesteps(ddim["num_inference_steps"])
    latents, scale = ddim["latents"], ddim["guidance_scale"]
    text = torch.cat((ddim["uncond"].expand_as(ddim["cond"]), ddim["cond"]))
    for t in scheduler.timesteps:
        unconditional, conditional = unet(torch.cat((latents, latents)), t, text).sample.chunk(2)
        guided = unconditional + scale * (conditional - unconditional)
        latents = scheduler.step(guided, t, latents, eta=ddim.get("eta", 0)).prev_sample
    return latents


def invert_ddim(unet, ddim):
    """Return ddim["latents"] carried back to noise by DDIM inversion under ddim["cond"], without guidance.

    The published inversion reads every prediction as noise and never clips, whatever the scheduler says.
    """
    published = {"prediction_type": "epsilon", "clip_sample": False}
    scheduler = DDIMInverseScheduler.from_config({**ddim["scheduler"], **published})
    scheduler.set_timesteps(ddim["num_inference_steps"])
    latents = ddim["latents"]
    for t in scheduler.timesteps:
        latents = scheduler.step(unet(latents, t, ddim["cond"]).sample, t, latents).prev_sample
    return latents


def relative_error(given, expected, floor=0.0):
    """Return the largest error of `given` over the largest magnitude of `expected`, or over `floor` if that is more.

    Anything missing, misshapen or not finite is an infinite error.
    """
    if given is None or given.shape != expected.shape:
        return float("inf")
    scale = max(expected.double().abs().max().item(), floor, 1e-300)
    error = (given.double() - expected.double()).abs().max().item() / scale
    return error if error < float("inf") else float("inf")


def _under(prefix, record):
    return {name.removeprefix(prefix): value for name, value in record.items() if name.startswith(prefix)}


def main(files):
    """Print the errors of each recording; return 0 if all are within the limits, 1 if not, 2 without a file."""
    if not files:
        print(__doc__)
        return 2
    failed = False
    for file in files:
        for part, error in parity_errors(file).items():
            good = error <= LIMITS[part]
            failed |= not good
            verdict = "ok" if good else "FAILED"
            print(f"{Path(file).stem}  {part:9}  {error:.2e}  limit {LIMITS[part]:.0e}  {verdict}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
