"""A CLIP model from a local folder, and the features of frames and prompts that the metrics compare."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from rcv.world.model import clip_path

BATCH = 64
_PARTS = {
    "CLIP model": ("config.json",),
    # transformers 5 writes the image processor's settings into the processor's
    "image processor": ("preprocessor_config.json", "processor_config.json"),
    "tokenizer": ("tokenizer.json", "vocab.json"),
}


@dataclass(frozen=True)
class ImageTextModel:
    """A CLIP model with the processor that prepares its images and prompts.

    Attributes
    ----------
    model : transformers.CLIPModel
    processor : transformers.CLIPProcessor
    name : str
        Where it was loaded from, for reports.
    """

    model: Any
    processor: Any
    name: str

    @torch.no_grad()
    def image_features(self, frames):
        """Return the features of uint8 frames [F,H,W,3]: float32 [F,D] of length 1."""
        parts = []
        for start in range(0, len(frames), BATCH):
            # named, since three rows of pixels look like three channels
            prepared = self.processor.image_processor(
                images=list(frames[start : start + BATCH]),
                return_tensors="pt",
                input_data_format="channels_last",
            )
            pixels = prepared["pixel_values"].to(self.model.device, self.model.dtype)
            parts.append(_unit(self.model.get_image_features(pixel_values=pixels)))
        return torch.cat(parts)

    @torch.no_grad()
    def text_features(self, prompts):
        """Return the features of a list of prompts, cut off where the model ends: float32 [n,D] of length 1."""
        parts = []
        for start in range(0, len(prompts), BATCH):
            tokens = self.processor.tokenizer(
                list(prompts[start : start + BATCH]),
                padding=True,
                truncation=True,
                max_length=self.model.config.text_config.max_position_embeddings,
                return_tensors="pt",
            ).to(self.model.device)
            found = self.model.get_text_features(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            )
            parts.append(_unit(found))
        return torch.cat(parts)


def load_clip(path=None, device="cpu"):
    """Return the ImageTextModel of a folder in transformers' layout, in float32; nothing is ever downloaded.

    Parameters
    ----------
    path : path, optional
        CLIPModel and CLIPProcessor, as `save_pretrained` writes them or a model hub holds them; the motion world's
        own small CLIP if left out.
    device : str or torch.device

    Raises
    ------
    FileNotFoundError
        No such folder, or the package was installed without its CLIP.
    ValueError
        The folder holds no CLIP model, or no processor to prepare images and prompts with.
    """
    from transformers import CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizerFast

    folder = clip_path() if path is None else Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected a CLIP model in transformers' layout")
    for part, names in _PARTS.items():
        if not any((folder / name).is_file() for name in names):
            raise ValueError(
                f"{folder} holds no {part} ({names[0]} is missing); copy the model's whole folder, processor included"
            )
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
        if kind != "clip":
            raise ValueError(f"it is a model of type {kind!r}, expected 'clip'")
        model, found = CLIPModel.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
        # position numbers are no weights; older files hold them, newer ones do not
        if missing := sorted(name for name in found["missing_keys"] if not name.endswith("position_ids")):
            raise ValueError(f"weights are missing: {', '.join(missing[:3])}")
        processor = CLIPProcessor(
            CLIPImageProcessor.from_pretrained(folder, local_files_only=True),
            CLIPTokenizerFast.from_pretrained(folder, local_files_only=True),
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder} cannot be loaded as a CLIP model: {error}") from error
    name = "the motion world's CLIP" if path is None else str(folder)
    return ImageTextModel(model.eval().to(device), processor, name)


def _unit(features):
    """Return features as float32 of length 1; transformers 5 wraps them in an output object."""
    features = getattr(features, "pooler_output", features).float()
    return features / features.norm(dim=-1, keepdim=True)
