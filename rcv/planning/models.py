"""Models to plan for: Stable Diffusion's by name, or a folder's, as shapes without weights."""

from dataclasses import dataclass
from pathlib import Path

import torch

from rcv.config import nearest

_SD = {"sample_size": 64, "block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2}
_SD1 = {**_SD, "cross_attention_dim": 768, "attention_head_dim": 8}
_SD2 = {
    **_SD,
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
}
_VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
}
_CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
_CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 23}


@dataclass(frozen=True)
class ModelShape:
    """What planning needs to know of a base model.

    Attributes
    ----------
    name : str
    unet, vae, text_encoder : dict
        Configurations as in their config.json.
    """

    name: str
    unet: dict
    vae: dict
    text_encoder: dict

    @property
    def vae_factor(self):
        """Pixels of a latent's side."""
        return 2 ** (len(self.vae["block_out_channels"]) - 1)

    @property
    def size(self):
        """Height and width in pixels that the UNet was trained at."""
        side = self.unet["sample_size"]
        height, width = side if isinstance(side, list | tuple) else (side, side)
        return height * self.vae_factor, width * self.vae_factor

    def make_vae(self, dtype=torch.float32):
        """Return an AutoencoderKL with random weights on the present default device."""
        from diffusers import AutoencoderKL

        vae = AutoencoderKL.from_config(self.vae).requires_grad_(False).eval()
        for tensor in (*vae.parameters(), *vae.buffers()):
            tensor.data = tensor.data.to(dtype)  # `Module.to` cannot on fake tensors
        return vae

    def make_text_encoder(self):
        """Return a CLIPTextModel with random weights on the present default device."""
        from transformers import CLIPTextConfig, CLIPTextModel

        return CLIPTextModel(CLIPTextConfig.from_dict(self.text_encoder)).requires_grad_(False).eval()

    def parameters(self, part):
        """Return how many parameters "vae" or "text_encoder" has."""
        with torch.device("meta"):
            model = self.make_vae() if part == "vae" else self.make_text_encoder()
        return sum(p.numel() for p in model.parameters())


NAMED = {
    model.name: model
    for model in (
        ModelShape("sd1.4", _SD1, _VAE, _CLIP_L),
        ModelShape("sd1.5", _SD1, _VAE, _CLIP_L),
        ModelShape("sd2.1-base", _SD2, _VAE, _CLIP_H),
        ModelShape("sd2.1", {**_SD2, "sample_size": 96}, _VAE, _CLIP_H),
    )
}


def model_shape(name):
    """Return the ModelShape of a name in NAMED, of "embedded", or of a pipeline folder.

    Raises
    ------
    ValueError
        For an unknown name, and for a folder that is no pipeline in diffusers' layout.
    """
    if name in NAMED:
        return NAMED[name]
    if name == "embedded":
        from rcv.world import model_path

        return _folder_shape(name, model_path())
    path = Path(name).expanduser()
    if not path.exists():
        known = [*NAMED, "embedded"]
        raise ValueError(
            f"unknown model {str(name)!r}{nearest(name, known)} (known: {', '.join(known)}, or the folder of a "
            "pipeline; planning downloads nothing)"
        )
    return _folder_shape(str(name), path)


def _folder_shape(name, path):
    from rcv.models.sources import blocks_2d, read_config

    parts = {}
    for part in ("unet", "vae", "text_encoder"):
        if not (path / part / "config.json").is_file():
            raise ValueError(
                f"{path} has no {part}/config.json; expected the folder of a pipeline in diffusers' layout"
            )
        parts[part] = read_config(path / part)
    parts["unet"] = blocks_2d({k: v for k, v in parts["unet"].items() if k != "preset"})
    return ModelShape(name, **parts)
