"""Text to video with a VideoUNet: a diffusers pipeline."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.loaders import StableDiffusionLoraLoaderMixin, TextualInversionLoaderMixin
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from diffusers.schedulers import KarrasDiffusionSchedulers
from diffusers.utils import BaseOutput
from diffusers.video_processor import VideoProcessor
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from rcv.models import VideoUNet

from .inputs import check_inputs, scheduler_step_arguments
from .latents import iter_decoded
from .loading import load_base
from .noise import NoiseConfig, sample_noise
from .text import embed_text
from .windows import Windows, hold_to_first_frame, predict


@dataclass
class VideoPipelineOutput(BaseOutput):
    """`frames`: for "pil" a list (videos) of lists of images; "np" float32 [B,F,H,W,3] and "pt" [B,F,3,H,W] in
    [0,1]; "latent" scaled latents [B,C,F,h,w]."""

    frames: list[list[Image.Image]] | np.ndarray | torch.Tensor


class VideoPipeline(DiffusionPipeline, StableDiffusionLoraLoaderMixin, TextualInversionLoaderMixin):
    """Generates videos from text, with any diffusers scheduler of the DDPM family.

    `from_base` makes one from a text-to-image folder and an adapter; `save_pretrained` and `from_pretrained` keep
    it whole. `vae`, `text_encoder` and `tokenizer` may be None for work on latents and embeddings alone.
    """

    model_cpu_offload_seq = "text_encoder->unet->vae"
    _optional_components = ["vae", "text_encoder", "tokenizer"]  # noqa: RUF012 (diffusers reads it from the class)
    _callback_tensor_inputs = ["latents", "prompt_embeds", "negative_prompt_embeds"]  # noqa: RUF012

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: VideoUNet,
        scheduler: KarrasDiffusionSchedulers,
    ):
        super().__init__()
        self.register_modules(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler
        )
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1) if vae is not None else 8
        self.video_processor = VideoProcessor(vae_scale_factor=self.vae_scale_factor)

    @classmethod
    def from_base(
        cls,
        path,
        preset=None,
        adapter=None,
        torch_dtype=None,
        variant=None,
        allow_pickle=False,
        *,
        dtype=None,
    ) -> "VideoPipeline":
        """Pipeline on a Stable Diffusion 1.x or 2.x model in diffusers' layout.

        Parameters
        ----------
        path
            Folder with model_index.json (or the Hub name of one); also a folder that `save_pretrained` of this
            class wrote.
        preset
            Name or Preset. None takes the adapter's, else "recurrent".
        adapter
            Trained weights to put in: the `.safetensors` file that finetuning wrote, or its folder. A list of them,
            each a path or "PATH:WEIGHT", or {path: weight}, is mixed (`rcv.diffusion.adapters.load_adapters`).
        torch_dtype, dtype
            Of all models (diffusers' former and present name); float32 if None, whatever the files hold.
        variant
            "fp16" reads `*.fp16.safetensors`.
        allow_pickle
            Whether weights may come from `.bin` files (tensors only, nothing in them is run).

        Raises
        ------
        ValueError
            `path` is another kind of model or lacks files; `adapter` is no adapter, or of another preset; adapters of
            different bases or presets.
        """
        dtype = dtype or torch_dtype or torch.float32
        return cls(**load_base(path, preset, adapter, dtype, variant, allow_pickle))

    @property
    def interrupt(self) -> bool:
        """True once a callback has set `_interrupt`: the loop ends after the running step."""
        return self._interrupt

    @property
    def guidance_scale(self) -> float:
        """Guidance scale of the running call; a callback may change `_guidance_scale`, but not across 1."""
        return self._guidance_scale

    @property
    def num_timesteps(self) -> int:
        """Number of scheduler steps of the running call."""
        return self._num_timesteps

    def size(self, height: int | None = None, width: int | None = None) -> tuple[int, int]:
        """(height, width) in pixels, the UNet's own size for those that are None.

        Raises
        ------
        ValueError
            A side that is not a multiple of the VAE's factor.
        """
        own, factor = self.unet.config.sample_size, self.vae_scale_factor
        if own is None and None in (height, width):
            raise ValueError("height and width must be given: the UNet's configuration names no sample_size")
        own = (own, own) if isinstance(own, int | None) else own
        sides = [
            side * factor if given is None else given
            for side, given in zip(own, (height, width), strict=True)
        ]
        for name, value in zip(("height", "width"), sides, strict=True):
            if not isinstance(value, int) or value < factor or value % factor:
                below = max(1, int(value) // factor) * factor
                raise ValueError(
                    f"{name} is {value}, expected a multiple of {factor} (the VAE's factor), such as {below} or "
                    f"{below + factor}"
                )
        return sides[0], sides[1]

    def encode_prompt(
        self,
        prompt: list[str] | None,
        device: torch.device,
        guided: bool = True,
        negative_prompt: str | list[str] | None = None,
        num_videos_per_prompt: int = 1,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        clip_skip: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Text embeddings of prompts and, if `guided`, of negative prompts: each [prompts * videos, L, c]."""

        def embed(prompts):
            prompts = self.maybe_convert_prompt(prompts, self.tokenizer)
            return embed_text(self.tokenizer, self.text_encoder, prompts, device, clip_skip)

        def placed(embeds):
            embeds = embeds.to(device=device, dtype=self.unet.dtype)
            return embeds.repeat_interleave(num_videos_per_prompt, dim=0)

        if prompt_embeds is None:
            prompt_embeds = embed(prompt)
        if not guided:
            return placed(prompt_embeds), None
        if negative_prompt_embeds is None:
            if negative_prompt is None or isinstance(negative_prompt, str):
                negative_prompt = [negative_prompt or ""] * prompt_embeds.shape[0]
            negative_prompt_embeds = embed(negative_prompt)
        return placed(prompt_embeds), placed(negative_prompt_embeds)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        negative_prompt: str | list[str] | None = None,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        guidance_rescale: float = 0.0,
        num_videos_per_prompt: int = 1,
        eta: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        noise: NoiseConfig = NoiseConfig(),  # noqa: B008 (frozen)
        latents: torch.Tensor | None = None,
        first_frame_latents: torch.Tensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        clip_skip: int | None = None,
        windows: Windows | None = None,
        hold: float = 0.0,
        output_type: str = "pil",
        decode_chunk_size: int = 8,
        return_dict: bool = True,
        callback_on_step_end: Callable[[Any, int, int, dict], dict] | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> VideoPipelineOutput | tuple:
        """Generate videos.

        Latents stay in float32 between steps, whatever precision the models have.

        Parameters
        ----------
        prompt, negative_prompt
            One or several; a single negative prompt serves all prompts. Without guidance it is not used.
        num_frames
            Frames of each video: those of `latents` if given, else 16.
        height, width
            Pixels, multiples of the VAE's factor (8 in Stable Diffusion): those of `latents`, else the UNet's own.
        num_inference_steps
            Denoising steps.
        guidance_scale
            Classifier-free guidance; 1 or less turns it off and halves the work.
        guidance_rescale
            0 to 1: pulls the guided prediction's standard deviation to that of the conditional one (arXiv
            2305.08891, section 3.4), against the saturation of strong guidance; 0.7 is usual.
        num_videos_per_prompt
            Videos of each prompt, next to each other in the output.
        eta
            DDIM's eta; ignored by schedulers without one.
        generator
            One generator for all, or one for each video: then a video depends on its own alone.
        noise
            How the initial noise of the frames hangs together.
        latents
            Initial latents [B,C,F,h,w] in place of noise, such as those of `ddim_invert`.
        first_frame_latents
            Clean scaled latents [B,C,h,w] (or a batch of 1) of a given first frame. Before every step frame 0 is
            set to them, noised to the step's level with the noise it started from, so that the other frames
            attend to a first frame on its way to this picture; in the end it is the picture.
        prompt_embeds, negative_prompt_embeds
            [B,L,c] in place of prompts.
        clip_skip
            Last layers of the text encoder to leave out.
        windows
            How a long video is divided for the UNet, whose memory is then that of a window, such as
            `Windows.for_preset(pipe.unet.preset, 16)`. The first window's noise is drawn first, so that a longer video
            begins as a shorter one does. None: all frames at once.
        hold
            0 to 1: how far the channel statistics of later frames are pulled towards the first frame's, against the
            drift of long videos (`rcv.diffusion.windows.hold_to_first_frame`).
        output_type
            "pil", "np", "pt" or "latent".
        decode_chunk_size
            Frames that the VAE decodes at once.
        return_dict
            False returns the tuple (frames,).
        callback_on_step_end
            Called as f(pipeline, step, timestep, tensors) after each step; may return replacements. It may set
            `pipeline._interrupt = True`.
        callback_on_step_end_tensor_inputs
            Tensors handed to it, of `latents` (the default), `prompt_embeds`, `negative_prompt_embeds`.

        Returns
        -------
        VideoPipelineOutput

        Raises
        ------
        ValueError
            An argument that does not fit; the message names it.
        """
        if isinstance(callback_on_step_end, PipelineCallback | MultiPipelineCallbacks):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        tensor_inputs = callback_on_step_end_tensor_inputs or ["latents"]
        prompt = [prompt] if isinstance(prompt, str) else prompt
        shape = check_inputs(
            self,
            prompt=prompt,
            negative_prompt=negative_prompt,
            num_frames=num_frames,
            height=height,
            width=width,
            num_inference_steps=num_inference_steps,
            guidance_rescale=guidance_rescale,
            num_videos_per_prompt=num_videos_per_prompt,
            generator=generator,
            noise=noise,
            latents=latents,
            first_frame_latents=first_frame_latents,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            guided=guidance_scale > 1,
            windows=windows,
            hold=hold,
            output_type=output_type,
            decode_chunk_size=decode_chunk_size,
            tensor_inputs=tensor_inputs,
        )
        device, guided = self._execution_device, guidance_scale > 1
        self._guidance_scale, self._interrupt = guidance_scale, False

        prompt_embeds, negative_prompt_embeds = self.encode_prompt(
            prompt, device, guided, negative_prompt, num_videos_per_prompt, prompt_embeds, negative_prompt_embeds,
            clip_skip,
        )  # fmt: skip
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        timesteps = self.scheduler.timesteps
        self._num_timesteps = len(timesteps)
        if latents is None:
            window = None if windows is None else windows.length
            latents = sample_noise(shape, noise, generator=generator, device=device, window=window)
        start = latents.to(device=device, dtype=torch.float32)
        latents = start * self.scheduler.init_noise_sigma
        if first_frame_latents is not None:
            first_frame_latents = first_frame_latents.to(latents).expand(
                shape[0], *first_frame_latents.shape[1:]
            )
        step_arguments = scheduler_step_arguments(self.scheduler, eta, generator)
        with self.progress_bar(timesteps) as bar:
            for i, t in enumerate(bar):
                if first_frame_latents is not None:
                    latents[:, :, 0] = self.scheduler.add_noise(
                        first_frame_latents, start[:, :, 0], t.reshape(1)
                    )
                model_input = self.scheduler.scale_model_input(latents, t)
                text = torch.cat([negative_prompt_embeds, prompt_embeds]) if guided else prompt_embeds
                prediction = predict(self.unet, model_input, t, text, windows)
                if guided:
                    unconditional, conditional = prediction.chunk(2)
                    prediction = unconditional + self.guidance_scale * (conditional - unconditional)
                    if guidance_rescale > 0:
                        prediction = rescale_noise_cfg(prediction, conditional, guidance_rescale)
                latents = self.scheduler.step(prediction, t, latents, **step_arguments, return_dict=False)[0]
                if hold > 0:
                    reach = 16 if windows is None else windows.length
                    hold_to_first_frame(latents, hold, (i + 1) / len(timesteps), reach)
                if first_frame_latents is not None and i == len(timesteps) - 1:
                    latents[:, :, 0] = first_frame_latents

                if callback_on_step_end is not None:
                    named = {
                        "latents": latents,
                        "prompt_embeds": prompt_embeds,
                        "negative_prompt_embeds": negative_prompt_embeds,
                    }
                    replaced = callback_on_step_end(self, i, t, {name: named[name] for name in tensor_inputs})
                    named.update(replaced or {})
                    latents = named["latents"]
                    prompt_embeds = named["prompt_embeds"]
                    negative_prompt_embeds = named["negative_prompt_embeds"]
                if self.interrupt:
                    break

        frames = self._output(latents, output_type, decode_chunk_size)
        self.maybe_free_model_hooks()
        return VideoPipelineOutput(frames=frames) if return_dict else (frames,)

    @torch.no_grad()
    def iter_frames(self, latents: torch.Tensor, decode_chunk_size: int = 8) -> Iterator[np.ndarray]:
        """Frames of one video, uint8 [H,W,3], from its latents [C,F,h,w]: decoded when they are asked for.

        For videos that are written frame by frame (`rcv.video.write_video`) and too long to be held.
        """
        for chunk in self._decoded(latents[None], decode_chunk_size):
            images = self.video_processor.postprocess(chunk, "np")
            yield from np.rint(images * 255).astype(np.uint8)

    def _output(self, latents: torch.Tensor, output_type: str, decode_chunk_size: int):
        """Latents in the form that `output_type` names."""
        if output_type == "latent":
            if not torch.isfinite(latents).all():
                self._warn_not_finite("the UNet's latents", self.unet)
            return latents
        videos, _, frames = latents.shape[:3]
        chunks = [
            self.video_processor.postprocess(chunk, output_type)
            for chunk in self._decoded(latents, decode_chunk_size)
        ]
        if output_type == "pil":
            images = [image for chunk in chunks for image in chunk]
            return [images[k * frames : (k + 1) * frames] for k in range(videos)]
        joined = torch.cat(chunks) if output_type == "pt" else np.concatenate(chunks)
        return joined.reshape(videos, frames, *joined.shape[1:])

    def _decoded(self, latents: torch.Tensor, decode_chunk_size: int) -> Iterator[torch.Tensor]:
        """Chunks [n,3,H,W] of all videos' frames, nominally in [-1,1]; warns of values that are not finite."""
        finite = bool(torch.isfinite(latents).all())
        if not finite:
            self._warn_not_finite("the UNet's latents", self.unet)
        for chunk in iter_decoded(self.vae, latents, decode_chunk_size):
            if not torch.isfinite(chunk).all():
                if finite:
                    self._warn_not_finite("the VAE's frames", self.vae)
                    finite = False
                chunk = torch.nan_to_num(chunk.float(), nan=-1.0)
            yield chunk.float()

    @staticmethod
    def _warn_not_finite(what: str, model) -> None:
        advice = (
            "run the model in bfloat16 or float32" if model.dtype == torch.float16 else "check the weights"
        )
        warnings.warn(
            f"{what} hold NaN or infinite values ({type(model).__name__} in {model.dtype}), which show as black: "
            f"{advice}",
            RuntimeWarning,
            stacklevel=4,
        )
