"""README.md of a run: a model card that says what an adapter is, what it came from and how to use it."""

import os
import re
from pathlib import Path

import yaml
from huggingface_hub import ModelCard, ModelCardData

from rcv.config import read_settings
from rcv.diffusion.config import EMBEDDED
from rcv.training.adapter import read_adapter
from rcv.training.disk import writing
from rcv.training.log import Evaluation, read_log
from rcv.training.samples import last_samples

LIBRARY = "rcv-video"
CARD = "README.md"
UNKNOWN = "unknown"
UNREADABLE = (ValueError, OSError, yaml.YAMLError)
SHOWN = (
    *("preset", "frames", "size", "window", "steps", "learning_rate", "schedule", "precision", "batch_size"),
    *(
        "gradient_accumulation",
        "optimizer",
        "ema_decay",
        "debiased_loss",
        "noise",
        "noise_alpha",
        "noise_form",
        "seed",
    ),
)
"""Settings that the card's table lists; config.yaml has them all."""


def write_model_card(folder, license=None):
    """Write FOLDER/README.md of a run's adapter; returns its path.

    Parameters
    ----------
    folder : path
        A run's output: adapter.safetensors, config.yaml, and what there is of eval_losses.csv and samples/.
    license : str, optional
        Of the adapter, as the Hub names it, such as "cc-by-4.0". Left out, an earlier card's; else apache-2.0 if base
        and clips are this package's own, "unknown" otherwise.

    Raises
    ------
    ValueError
        A README.md that is no card of this library's stands there; no adapter.
    """
    folder = Path(folder)
    path = folder / CARD
    earlier = earlier_card(path)
    _, said = read_adapter(folder)
    file = folder / "config.yaml"
    settings = read_settings(file) if file.exists() else {}
    own = said["base"] == EMBEDDED and settings.get("clips") is None
    if license is None:
        license = earlier.data.license if earlier is not None else None
    if license in (None, UNKNOWN):
        license = "apache-2.0" if own else UNKNOWN
    samples = last_samples(folder, said.get("steps"))  # with patience the weights are not the last ones
    data = ModelCardData(
        library_name=LIBRARY,
        license=license,
        base_model=said["base"] if _is_hub_name(said["base"]) else None,
        pipeline_tag="text-to-video",
        tags=["text-to-video", "few-shot", "rcv", said["preset"]],
        widget=[
            {"text": prompt, "output": {"url": file.relative_to(folder).as_posix()}}
            for prompt, file in samples
        ]
        or None,
    )
    text = _text(folder, said, settings, license, samples)
    with writing(path):
        temporary = path.with_name(f".{CARD}.tmp")
        temporary.write_text(f"---\n{data.to_yaml()}\n---\n\n{text}", encoding="utf-8")
        os.replace(temporary, path)
    return path


def earlier_card(path):
    """Return the ModelCard that this library wrote at `path`, None where there is no file; ValueError for another's."""
    if not path.exists():
        return None
    try:
        card = ModelCard.load(path, ignore_metadata_errors=True)
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is not a model card ({reason}); it was left as it is") from None
    if card.data.library_name != LIBRARY:
        raise ValueError(f"{path} is not a card that rcv wrote; it was left as it is")
    return card


def _is_hub_name(base):
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", base)) and not Path(base).exists()


def _text(folder, said, settings, license, samples):
    """The card below its metadata, as Markdown."""
    base = said["base"]
    shown_base = base if base == EMBEDDED or _is_hub_name(base) else Path(base).name
    argument = (
        "" if base == EMBEDDED else f" --base {base if _is_hub_name(base) else 'PATH/TO/' + shown_base}"
    )
    prompt = samples[0][0] if samples else said["prompts"][0]
    loaded = "rcv.world.model_path()" if base == EMBEDDED else repr(argument.removeprefix(" --base "))
    imported = "import rcv.world\n" if base == EMBEDDED else ""
    rows = [
        ("base", f"{shown_base}, digest `{said.get('base_digest', UNKNOWN)}`"),
        *((name, _shown(settings[name])) for name in SHOWN if settings.get(name) is not None),
    ]
    losses = read_log(folder / "eval_losses.csv", Evaluation)
    if len(losses) > 1:
        rows.append(
            ("loss of fixed draws", f"{losses[0].eval_loss:.4f} before, {losses[-1].eval_loss:.4f} after")
        )
    rows += [(name, version) for name, version in said["versions"].items()]
    clips = said.get("clips", {})
    parts = [
        f"# {_line(folder.resolve().name)}",
        f"An adapter of rcv (`{LIBRARY}`): the text-to-image model {shown_base}, finetuned on "
        f"{len(clips)} clips of one motion to make videos of it. `adapter.safetensors` holds the trained weights "
        "alone; it needs the base.",
        *_pictures(folder, samples),
        "## Use",
        f"```sh\npip install {LIBRARY}\nrcv generate {_quoted(prompt)} --adapter .{argument} --output video.mp4\n```",
        f"```python\n{imported}from rcv import VideoPipeline\n\n"
        f'pipe = VideoPipeline.from_base({loaded}, adapter=".")\n'
        f"frames = pipe({_line(prompt)!r}, num_frames={said['frames']}).frames[0]\n```",
        "## Training",
        _table(("setting", "value"), rows),
        "`config.yaml` has all settings and repeats the run: `rcv finetune --config config.yaml`.",
        "## Clips",
        _table(
            ("clip", "caption", "digest of content and caption"),
            [(name, clip["caption"], f"`{clip['digest']}`") for name, clip in clips.items()],
        ),
        "## Licences",
        _table(
            ("of", "licence"),
            [
                ("this adapter", license),
                ("the base", _base_license(base)),
                ("the clips", _clips_license(settings.get("clips"))),
            ],
        ),
        *_unknown_licence(license),
    ]
    return "\n\n".join(parts) + "\n"


def _pictures(folder, samples):
    if samples:
        yield f"## Samples after step {int(samples[0][1].parent.name.removeprefix('step-'))}"
    for prompt, file in samples:
        link = file.relative_to(folder).as_posix()
        yield f"![{_line(prompt).replace('[', '(').replace(']', ')')}]({link})\n*{_line(prompt)}*"


def _base_license(base):
    """What the base says of its licence: that of its own model card, if it has one."""
    if base == EMBEDDED:
        return "apache-2.0"
    try:
        return ModelCard.load(Path(base) / CARD, ignore_metadata_errors=True).data.license or UNKNOWN
    except UNREADABLE:
        return UNKNOWN


def _clips_license(clips):
    if clips is None:
        return "apache-2.0 (rendered by rcv's motion world)"
    files = sorted(file.name for file in Path(clips).expanduser().glob("LICEN[CS]E*"))
    return f"see {', '.join(files)} beside the clips" if files else UNKNOWN


def _unknown_licence(license):
    if license == UNKNOWN:
        yield (
            "Nobody has said yet under which licence this adapter may be used. It follows from those of the base and "
            "the clips; `rcv push --license NAME` writes it down."
        )


def _shown(value):
    return "x".join(map(str, value)) if isinstance(value, list) else value


def _table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(_line(cell).replace('|', chr(92) + '|') for cell in row)} |" for row in lines
    )


def _line(value):
    """Text of users' files on one line, without HTML and the end of a block of code."""
    return " ".join(str(value).split()).replace("<", "&lt;").replace("```", "'''")


def _quoted(prompt):
    """A prompt as an argument of a shell."""
    return "'" + _line(prompt).replace("'", "'\\''") + "'"
