"""A run's results for use elsewhere: a whole pipeline, or a LoRA of its attention projections."""

from pathlib import Path

import torch

from rcv.config import DTYPES, checked_name
from rcv.diffusion.adapters import common_description, weighted_adapters
from rcv.diffusion.config import EMBEDDED
from rcv.training.adapter import read_adapter
from rcv.training.disk import OutputError, writing
from rcv.training.lora import export_lora
from rcv.video import replacing_folder

MODEL_INDEX = "model_index.json"


def export_pipeline(run, output, base=None, precision="fp32"):
    """Write the base with a run's adapter in it as one folder, whole or not at all.

    Parameters
    ----------
    run : path, or sequence of them
        Folder of a run or an adapter's file; several are mixed as `VideoPipeline.from_base` mixes them.
    output : path
        The folder to write. `VideoPipeline.from_pretrained` reads it, and so does `rcv generate --base`.
    base : path, optional
        The base model, where it is no longer where the adapter says.
    precision : str
        fp32, fp16 or bf16 of the frozen weights. Trained ones stay float32.

    Returns
    -------
    pathlib.Path
        `output`.

    Raises
    ------
    ValueError
        No adapter, no base, or a folder in the way that is no exported pipeline.
    OutputError
        The folder cannot be written.
    """
    checked_name("precision", precision, DTYPES)
    output = Path(output)
    occupied = output.exists() and (not output.is_dir() or any(output.iterdir()))
    if occupied and not (output / MODEL_INDEX).is_file():
        raise ValueError(f"{output} holds something else than a pipeline; choose another folder")
    pipeline = _pipeline(run, base, getattr(torch, DTYPES[precision]))
    try:
        with writing(output), replacing_folder(output) as folder:
            pipeline.save_pretrained(folder)
    except OutputError:
        raise
    except Exception as error:  # safetensors has an error of its own for a full disk
        raise OutputError(f"{output}: cannot be written ({error})") from error
    return output


def export_run_lora(run, output, rank=None, base=None):
    """Write a LoRA of a run's attention projections; returns the LoraExport.

    What the adapter trained beyond the 2D UNet's own linear layers (temporal attention, the recurrence) has no place in
    a LoRA and is named in `left_out`. Errors as `rcv.training.lora.export_lora`.
    """
    after, said = read_adapter(run)
    start = _pipeline([], base or said["base"], torch.float32, said["preset"])
    before = {
        name: tensor for name, tensor in start.unet.state_dict().items() if name in start.unet.image_names
    }
    description = {name: said.get(name) for name in ("base", "base_digest", "preset", "prompts", "seed")}
    return export_lora(before, after, output, rank, description)


def _pipeline(adapters, base, dtype, preset=None):
    from rcv.diffusion import VideoPipeline
    from rcv.world import model_path

    named = weighted_adapters(adapters)
    base = base or common_description(named).get("base")
    if base in (None, EMBEDDED):
        base = model_path()
    mixture = {adapter.path: adapter.weight for adapter in named}
    return VideoPipeline.from_base(base, preset=preset, adapter=mixture, dtype=dtype)
