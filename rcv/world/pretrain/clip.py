"""The motion world's small CLIP: frames and captions in one space, told apart by subject, colour and place."""

from functools import cache, lru_cache

import numpy as np
import torch
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

from rcv.training.lock import folder_lock
from rcv.video import replacing_folder
from rcv.world.backgrounds import BACKGROUNDS
from rcv.world.palette import COLORS
from rcv.world.pretrain.images import render_images
from rcv.world.pretrain.loop import train
from rcv.world.pretrain.run import (
    check_same_run,
    stage_progress,
    write_tokenizer_tables,
)
from rcv.world.pretrain.text import build_tokenizer, tokenize, train_text_model
from rcv.world.scene import (
    SUBJECTS,
    Scene,
    all_captions,
    caption_of,
    colors_for,
    is_held_out,
    parse_caption,
)

SHIFT = 4
"""Training images are moved by up to this many pixels."""
MOST_NOISE = 0.05
"""Highest standard deviation of the noise on training images, in units of the pixels' range."""
HIGHEST_SCALE = 100.0
"""Bound on the factor of the cosines (Radford et al., 2021)."""


def pretrain_clip(config, show_progress=True):
    """Train the motion world's CLIP and write it to OUTPUT/clip.

    Three stages, each of which goes on where a stopped run left it: images are rendered; a text model learns to name
    what captions say; a vision model, with the text model as it stands, learns to match frames with captions.

    Parameters
    ----------
    config : ClipConfig
    show_progress : bool

    Returns
    -------
    pathlib.Path
        OUTPUT/clip: CLIPModel in half precision and CLIPProcessor.

    Raises
    ------
    ValueError
        OUTPUT holds a run with other settings; or training diverged.
    """
    with folder_lock(config.output), stage_progress(show_progress) as progress:
        check_same_run(config)
        images, scenes = render_images(
            config.output, config.images, config.size, config.seed, config.workers,
            lambda done: progress("images", done, config.images),
        )  # fmt: skip
        tokenizer = build_tokenizer(config.vocabulary)
        torch.manual_seed(config.seed + 1)
        text_model = train_text_model(tokenizer, scenes, config, progress)
        torch.manual_seed(config.seed + 2)
        clip = build_clip(text_model, config)
        captions = [scene.caption for scene in scenes]
        train_clip(clip, images, captions, tokenizer, config, progress)
        return export_clip(clip, tokenizer, config.size, config.output / "clip")


def build_clip(text_model, config):
    """Return a CLIPModel with the weights of `text_model`, frozen, and a vision model with random ones."""
    clip = CLIPModel(
        CLIPConfig(
            text_config=text_model.config.to_dict(),
            vision_config={
                "hidden_size": config.width,
                "intermediate_size": 4 * config.width,
                "num_hidden_layers": config.layers,
                "num_attention_heads": max(1, config.width // 32),
                "image_size": config.size,
                "patch_size": config.patch,
            },
            projection_dim=config.embedding,
        )
    )
    inner = getattr(text_model, "text_model", text_model)  # transformers before 5 wraps it once more
    clip.text_model.load_state_dict(inner.state_dict())
    clip.text_model.requires_grad_(False)
    return clip


def train_clip(clip, images, captions, tokenizer, config, progress=None):
    """Train the vision model and both projections of `clip` on uint8 images [n,H,W,3] and their captions.

    Each image is held against the captions of the batch and against its own caption with the colour, the place or the
    subject exchanged; each caption against the images of the batch. The text model stands still, so that its states are
    computed once and exchanged captions cost a projection.
    """
    known = all_captions()
    number = {caption: i for i, caption in enumerate(known)}
    ids = torch.tensor([number[caption] for caption in captions])
    exchanged = exchanged_captions(known)
    meant = torch.tensor(
        [i // 2 for i in range(len(known))]
    )  # the two phrases of a combination mean the same
    states = text_states(clip, tokenizer, known)

    def loss_at(step, generator):
        chosen = torch.randint(len(ids), (config.batch,), generator=generator)
        pixels = augmented(images[chosen.numpy()], generator)
        seen = F.normalize(_features(clip.get_image_features(pixel_values=pixels)), dim=-1)
        own, other = ids[chosen], exchanged[ids[chosen]]
        said = F.normalize(clip.text_projection(states[own]).float(), dim=-1)
        wrong = F.normalize(clip.text_projection(states[other]).float(), dim=-1)
        scale = clip.logit_scale.exp().clamp(max=HIGHEST_SCALE)
        matches = scale * seen @ said.T
        same = (meant[own][:, None] == meant[own][None]) & ~torch.eye(len(own), dtype=torch.bool)
        matches = matches.masked_fill(same, -torch.inf)
        mismatches = scale * (wrong @ seen[:, :, None])[..., 0]
        mismatches = mismatches.masked_fill(other < 0, -torch.inf)
        truth = torch.arange(len(own))
        of_images = F.cross_entropy(torch.cat([matches, mismatches], dim=1), truth)
        return (of_images + F.cross_entropy(matches.T, truth)) / 2

    train(
        "clip", clip, loss_at, folder=config.output, steps=config.steps, learning_rate=config.learning_rate,
        config=config, ema_decay=config.ema_decay, progress=progress,
    )  # fmt: skip


@lru_cache(maxsize=1)
def exchanged_captions(captions):
    """Return [n, m]: for each caption the numbers of those with another colour, place or subject; -1 fills up.

    Combinations that no training image shows are left out: they would be learnt as always wrong.
    """
    number = {caption: i for i, caption in enumerate(captions)}
    rows = []
    for caption in captions:
        told = parse_caption(caption)
        theme = told["theme"]
        phrase = next(p for p in (0, 1) if caption_of(**told, phrase=p) == caption)
        others = [
            {**told, name: value}
            for name, values in (("color", COLORS), ("background", BACKGROUNDS), ("subject", SUBJECTS[theme]))
            for value in values
            if value != told[name]
        ]
        rows.append(
            [number[caption_of(**other, phrase=phrase)] for other in others if is_trained_on(**other)]
        )
    longest = max(map(len, rows))
    return torch.tensor([row + [-1] * (longest - len(row)) for row in rows])


@cache
def is_trained_on(theme, subject, color, background):
    """Return whether training images show this combination: the colour stands out, and it is not held out."""
    return color in colors_for(theme, background) and not is_held_out(
        Scene(theme, subject, color, background)
    )


@torch.no_grad()
def text_states(clip, tokenizer, captions, batch=500):
    """Return the text model's pooled states of captions, before the projection: float32 [n, width]."""
    ids = tokenize(tokenizer, list(captions))
    ends = (ids == tokenizer.eos_token_id).int().argmax(1)
    ids = ids[:, : int(ends.max()) + 1]  # what follows the end is not seen by it
    clip.eval()
    return torch.cat(
        [clip.text_model(input_ids=ids[i : i + batch]).pooler_output for i in range(0, len(ids), batch)]
    )


def augmented(images, generator):
    """Return uint8 images [n,H,W,3] as float32 [n,3,H,W] in [-1, 1]: mirrored, shifted, blurred and noisy at random.

    Blur and noise stand for what an autoencoder and too few denoising steps do to generated frames.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    count, _, height, width = pixels.shape
    pixels = torch.where((torch.rand(count, 1, 1, 1, generator=generator) < 0.5), pixels.flip(-1), pixels)
    padded = F.pad(pixels, (SHIFT,) * 4, mode="replicate")
    moves = torch.randint(2 * SHIFT + 1, (count, 2), generator=generator).tolist()
    pixels = torch.stack(
        [image[:, y : y + height, x : x + width] for image, (y, x) in zip(padded, moves, strict=True)]
    )
    blurred = F.avg_pool2d(F.pad(pixels, (1,) * 4, mode="replicate"), 3, stride=1)
    pixels = torch.lerp(pixels, blurred, torch.rand(count, 1, 1, 1, generator=generator))
    noise = torch.randn(pixels.shape, generator=generator)
    return pixels + 2 * MOST_NOISE * torch.rand(count, 1, 1, 1, generator=generator) * noise


def export_clip(clip, tokenizer, size, folder):
    """Write a CLIPModel in half precision and its CLIPProcessor to `folder`, replacing it; returns `folder`."""
    images = CLIPImageProcessor(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size},
        image_mean=[0.5] * 3, image_std=[0.5] * 3,
    )  # fmt: skip
    with replacing_folder(folder) as temporary:
        clip.half().save_pretrained(temporary)
        CLIPProcessor(images, tokenizer).save_pretrained(temporary)
        images.save_pretrained(temporary)  # where transformers before 5 looks
        write_tokenizer_tables(temporary)
    return folder


def _features(output):
    return getattr(output, "pooler_output", output).float()
