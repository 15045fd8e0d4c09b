"""The whole training: images, autoencoder, text model, UNet, and the model written in diffusers' layout."""

import json

import torch
from diffusers import StableDiffusionPipeline
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rcv.training.lock import folder_lock
from rcv.video import replacing_folder
from rcv.world.pretrain.autoencoder import encode, train_autoencoder
from rcv.world.pretrain.curves import write_curves
from rcv.world.pretrain.denoiser import build_scheduler, train_denoiser
from rcv.world.pretrain.images import render_images
from rcv.world.pretrain.text import build_tokenizer, train_text_model


def pretrain(config, show_progress=True):
    """Train the embedded model and write it to OUTPUT/model.

    Four stages: images are rendered; an autoencoder, a text model, and a UNet with the text model are trained. Each
    goes on where a stopped run left it. OUTPUT also holds the settings, the losses as CSV and the curves as PNG.

    Parameters
    ----------
    config : PretrainConfig
    show_progress : bool

    Returns
    -------
    pathlib.Path
        OUTPUT/model: a StableDiffusionPipeline in half precision.

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
        torch.manual_seed(config.seed)
        vae = train_autoencoder(images, config, progress)
        tokenizer = build_tokenizer(config.vocabulary)
        torch.manual_seed(config.seed + 1)
        text_model = train_text_model(tokenizer, scenes, config, progress)
        torch.manual_seed(config.seed + 2)
        latents = encode(vae, images)
        captions = [scene.caption for scene in scenes]
        unet = train_denoiser(latents, captions, tokenizer, text_model, config, progress)
        write_curves(config.output)
        return export(vae, text_model, tokenizer, unet, config.output / "model")


def export(vae, text_model, tokenizer, unet, folder):
    """Write the parts as a StableDiffusionPipeline in half precision to `folder`, replacing it; returns `folder`."""
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_model,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    with replacing_folder(folder) as temporary:
        pipeline.to(dtype=torch.float16).save_pretrained(temporary)
        write_tokenizer_tables(temporary / "tokenizer")
    return folder


def write_tokenizer_tables(folder):
    """Write FOLDER/vocab.json and merges.txt, which transformers before 5 reads, from its tokenizer.json."""
    written = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in written["merges"]]
    (folder / "vocab.json").write_text(json.dumps(written["vocab"]), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs, ""]), encoding="utf-8")


def check_same_run(config):
    """Refuse to go on with other settings than the ones in OUTPUT/config.yaml; write them if there are none."""
    file = config.output / "config.yaml"
    before = type(config).read_yaml(file) if file.exists() else config
    free = {"output", "workers", "checkpoint_every"}
    differing = [
        f"{name} was {old!r} and is {getattr(config, name)!r}"
        for name, old in before
        if name not in free and old != getattr(config, name)
    ]
    if differing:
        raise ValueError(
            f"output: {config.output} holds a run with other settings ({'; '.join(differing)}); "
            "give another folder, or remove that one"
        )
    config.write_yaml(file)


class stage_progress:
    """A bar a stage; called as progress(stage, done, total, loss)."""

    def __init__(self, show):
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"),
            TimeRemainingColumn(), disable=not show,
        )  # fmt: skip
        self.tasks = {}

    def __enter__(self):
        self.bar.start()
        return self

    def __exit__(self, *raised):
        self.bar.stop()

    def __call__(self, stage, done, total, loss=None):
        if stage not in self.tasks:
            self.tasks[stage] = self.bar.add_task(stage, total=total, loss="")
        text = "" if loss is None else f"loss {loss:.4f}"
        self.bar.update(self.tasks[stage], completed=done, loss=text)
