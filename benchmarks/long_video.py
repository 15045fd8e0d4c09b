"""Long generation with the embedded model: peak memory, and how far the background drifts, by frame.

    python -m benchmarks.long_video --adapter runs/streaming --output runs/long

An adapter of preset `streaming` carries its state; others are blended. The 256-frame video begins as the 32-frame one
does, so that its first 32 frames are the comparison.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from rcv.diffusion import NoiseConfig, VideoPipeline
from rcv.diffusion.adapters import adapter_description
from rcv.diffusion.windows import Windows
from rcv.planning.live_bytes import LiveBytes
from rcv.video import write_video
from rcv.world import model_path

from .drift import drift

PROMPT = "a red elephant walking in the desert"


def generate(pipe, frames, arguments, path=None):
    """Return the frames of a video, uint8 [F,H,W,3], and the peak of live bytes; written to `path` as they come."""
    parts = (pipe.unet, pipe.vae, pipe.text_encoder)
    weights = [t for part in parts for t in (*part.parameters(), *part.buffers())]
    generator = torch.Generator().manual_seed(arguments["seed"])
    with LiveBytes(weights) as alive:
        latents = pipe(
            arguments["prompt"],
            num_frames=frames,
            num_inference_steps=arguments["steps"],
            guidance_scale=arguments["guidance_scale"],
            noise=arguments["noise"],
            windows=arguments["windows"] if frames > arguments["windows"].length else None,
            hold=arguments["hold"],
            generator=generator,
            output_type="latent",
        ).frames
        pictures = []
        for picture in pipe.iter_frames(latents[0]):
            pictures.append(picture)
    video = np.stack(pictures)
    if path is not None:
        write_video(path, video, fps=8, scale=4)
    return video, alive.peak


def report(video, peak):
    """Return what is said of one video: drift over its first 32 frames and over its last."""
    found, frames = drift(video), len(video)
    spans = {f"{first}-{first + 31}": found.over(first, first + 31) for first in range(1, frames, 32)}
    return {"frames": frames, "peak_live_mib": round(peak / 2**20, 1), "drift (colour, structure)": spans}


def main(arguments=None):
    """Run the comparison and write videos, sheets and report.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--adapter", type=Path, required=True, help="what `rcv finetune` wrote")
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--frames", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--hold", type=float, nargs="+", default=[0.0, 0.5], help="strengths of the AdaIN")
    parser.add_argument("--window", type=int, default=16)
    parser.add_argument("--mode", default=None, help="carry or blend; the preset's if left out")
    parser.add_argument("--beyond", default="fresh", help="fresh or shuffled noise")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance-scale", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prompt", default=PROMPT)
    given = parser.parse_args(arguments)
    pipe = VideoPipeline.from_base(model_path(), adapter=given.adapter)
    noise = adapter_description(given.adapter).get("noise", {})
    shared = {
        **vars(given),
        "noise": NoiseConfig(**noise, beyond=given.beyond),
        "windows": Windows.for_preset(pipe.unet.preset, given.window, given.mode),
    }
    results = []
    for hold in given.hold:
        for frames in given.frames:
            stem = f"{pipe.unet.preset.name}-{shared['windows'].mode}-hold{hold:g}-{frames}"
            video, peak = generate(pipe, frames, {**shared, "hold": hold}, given.output / f"{stem}.mp4")
            every = max(1, frames // 32)
            write_video(given.output / f"{stem}.png", video[::every], scale=2)
            results.append({"hold": hold, **report(video, peak)})
            print(json.dumps(results[-1], indent=1), flush=True)
    (given.output / "report.json").write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
