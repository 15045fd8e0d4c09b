"""Settings of generation and inversion. Importing this module brings no PyTorch, so that `rcv --help` is quick."""

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from rcv.config import DTYPES, Config, checked_name

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-ancestral": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "lcm": "LCMScheduler",
    "pndm": "PNDMScheduler",
    "unipc": "UniPCMultistepScheduler",
}
EMBEDDED = "embedded"
"""What the adapters of the embedded model name as their base."""

WINDOW_MODES = ("carry", "blend")
WINDOW = 16
"""Frames of a window that nobody chose."""

GUIDANCE = 7.5
EMBEDDED_GUIDANCE = 3.0
"""The embedded model has learnt from its captions alone: more of it saturates."""


class ModelConfig(Config):
    """Which model runs, and where: shared by generation and inversion."""

    base: str | None = Field(
        None,
        description="Stable Diffusion 1.x or 2.x folder; the adapter's own, else the embedded model, if left out.",
    )
    adapter: list[str] = Field(
        [],
        description="Folder or .safetensors file that `rcv finetune` wrote. Several are mixed, each with a weight of "
        "its own: --adapter runs/a:0.7 --adapter runs/b:0.3 (1 if left out).",
    )
    preset: str | None = Field(
        None, description="What a frame attends to; the adapter's, else recurrent, if left out."
    )
    scheduler: str | None = Field(
        None, description=f"One of {', '.join(SCHEDULERS)}; the base's own if left out."
    )
    precision: str = Field("fp32", description="fp32, fp16 or bf16.")
    device: str | None = Field(None, description="cpu, cuda, cuda:1 ...; a GPU if there is one.")

    @field_validator("adapter", mode="before")
    @classmethod
    def _one_or_several(cls, adapter):
        if adapter is None:
            return []
        several = [adapter] if isinstance(adapter, str | Path) else adapter
        return [str(one) if isinstance(one, Path) else one for one in several]

    @field_validator("preset")
    @classmethod
    def _known_preset(cls, name):
        if name is not None:
            from rcv.models import get_preset

            get_preset(name)
        return name

    @field_validator("scheduler", "precision")
    @classmethod
    def _known_name(cls, name, info):
        known = {"scheduler": SCHEDULERS, "precision": DTYPES}[info.field_name]
        return None if name is None else checked_name(info.field_name, name, known)

    def with_adapter_defaults(self):
        """Return the settings with those that were left open taken from the (first) adapter; itself without one."""
        if not self.adapter:
            return self
        from rcv.diffusion.adapters import common_description, weighted_adapters

        return self.model_copy(update=self._left_open(common_description(weighted_adapters(self.adapter))))

    def _left_open(self, trained):
        """Return {setting: value} of what an adapter's description says on settings that are None."""
        base = trained.get("base")
        said = {"base": None if base == EMBEDDED else base, "preset": trained.get("preset")}
        if self.height is None and self.width is None:
            said["height"], said["width"] = trained.get("size", (None, None))
        return {
            name: value for name, value in said.items() if value is not None and getattr(self, name) is None
        }


class GenerateConfig(ModelConfig):
    """Settings of `rcv generate`."""

    prompts: list[str] = Field([], description="What to show; several prompts give several videos.")
    negative_prompt: str = Field("", description="What to keep away from.")
    videos_per_prompt: int = Field(1, ge=1, description="Videos of each prompt, with different seeds.")
    batch_size: int = Field(1, ge=1, description="Videos at once: faster on a GPU, more memory.")
    frames: int | None = Field(
        None,
        ge=1,
        description="Frames of each video; those of the latents or of the adapter's training, else 16, if left out.",
    )
    height: int | None = Field(
        None, ge=1, description="Pixels; the adapter's, else the base's own size, if left out."
    )
    width: int | None = Field(
        None, ge=1, description="Pixels; the adapter's, else the base's own size, if left out."
    )
    steps: int = Field(50, ge=1, description="Denoising steps.")
    guidance_scale: float | None = Field(
        None,
        ge=0,
        description=f"Classifier-free guidance; 1 turns it off; {GUIDANCE} if left out, {EMBEDDED_GUIDANCE} for the "
        "embedded model.",
    )
    guidance_rescale: float = Field(
        0.0, ge=0, le=1, description="Rescale of the guided prediction's spread (0 to 1)."
    )
    seed: int = Field(0, ge=0, description="Video k of a call uses seed + k.")
    noise: str | None = Field(
        None,
        description="independent, shared or autoregressive initial noise over frames; as the adapter was trained, "
        "else independent, if left out.",
    )
    noise_alpha: float | None = Field(
        None,
        ge=0,
        le=1,
        description="How much the frames' noise has in common (0 to 1); as the adapter, else 0.5, if left out.",
    )
    noise_form: str | None = Field(
        None,
        description="variance_preserving, or paper for its formulas; as the adapter, else the first, if left out.",
    )
    noise_beyond: str = Field(
        "fresh",
        description="Noise behind the first window of a long video: fresh, or shuffled (the first window's over and "
        "over, in another order, as FreeNoise).",
    )
    window: int | None = Field(
        None,
        ge=1,
        description="Frames that the UNet sees at once, which its memory goes by: a longer video is made window by "
        "window. As many as the adapter was trained on at once, but 16 at least, if left out.",
    )
    window_mode: str | None = Field(
        None,
        description="carry: windows hand on their state, as exact as a single pass (for presets whose frames depend "
        "on earlier ones alone); blend: they overlap and are averaged. carry where the preset can, if left out.",
    )
    window_overlap: int | None = Field(
        None, ge=0, description="Frames that blended windows share; a quarter of a window if left out."
    )
    hold: float = Field(
        0.0,
        ge=0,
        le=1,
        description="How far the colour statistics of later frames are pulled towards the first frame's (0 to 1), "
        "against drift.",
    )
    latents: Path | None = Field(
        None, description="Initial latents that `rcv invert` wrote (guided generation)."
    )
    first_frame: Path | None = Field(None, description="Picture or clip whose first frame begins the video.")
    fps: float = Field(8.0, gt=0, description="Frames a second of the written file.")
    scale: int = Field(1, ge=1, description="Each pixel is written as a square of so many: for small videos.")
    decode_chunk_size: int = Field(8, ge=1, description="Frames that the VAE decodes at once.")
    output: Path = Field(
        Path("video.mp4"),
        description=".mp4, .gif, .png (a sheet) or a folder of frames; an earlier result there is replaced.",
    )

    @model_validator(mode="after")
    def _noise_is_known(self):
        self.noise_config()
        return self

    @model_validator(mode="after")
    def _windows_fit(self):
        if self.window_mode is not None:
            checked_name("window_mode", self.window_mode, WINDOW_MODES)
        if None not in (self.window, self.frames) and self.window > self.frames:
            raise ValueError(
                f"window is {self.window}, more than the {self.frames} frames of a video; leave window out"
            )
        return self

    def noise_config(self):
        """Return the NoiseConfig of these settings; ValueError for an unknown strategy or form."""
        from rcv.diffusion.noise import NoiseConfig

        given = {
            "strategy": self.noise,
            "alpha": self.noise_alpha,
            "form": self.noise_form,
            "beyond": self.noise_beyond,
        }
        return NoiseConfig(**{name: value for name, value in given.items() if value is not None})

    def _left_open(self, trained):
        at_once = trained.get("window") or trained.get("frames")
        if self.latents is not None:  # they have a size and a frame count
            trained = {name: value for name, value in trained.items() if name not in ("size", "frames")}
        said = super()._left_open(trained)
        if self.frames is None and "frames" in trained:
            said["frames"] = trained["frames"]
        if self.window is None and at_once is not None:
            said["window"] = max(at_once, WINDOW)
        noise = trained.get("noise", {})
        if self.noise in (None, noise.get("strategy")):
            own = {
                "noise": noise.get("strategy"),
                "noise_alpha": noise.get("alpha"),
                "noise_form": noise.get("form"),
            }
            said.update({name: value for name, value in own.items() if getattr(self, name) is None})
        return said


class InvertConfig(ModelConfig):
    """Settings of `rcv invert`."""

    video: Path | None = Field(None, description="Video file, GIF or folder of frames.")
    prompt: str = Field("", description="Text during the inversion; empty as Tune-A-Video does.")
    frames: int = Field(16, ge=1, description="Frames taken from the start of the video.")
    stride: int = Field(1, ge=1, description="Every which frame of the video.")
    height: int | None = Field(
        None, ge=1, description="Pixels; the adapter's, else the base's own size, if left out."
    )
    width: int | None = Field(
        None, ge=1, description="Pixels; the adapter's, else the base's own size, if left out."
    )
    steps: int = Field(50, ge=1, description="Inversion steps; generate with as many.")
    seed: int = Field(0, ge=0, description="Seed of the VAE's draw.")
    output: Path = Field(
        Path("latents.safetensors"), description="Where the latents go; an earlier file is replaced."
    )

    @field_validator("output")
    @classmethod
    def _is_safetensors(cls, output):
        if output.suffix != ".safetensors":
            raise ValueError(f"{output.name}: latents are written as .safetensors")
        return output
