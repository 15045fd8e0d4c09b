"""Checkpoints of the published programs (Tune-A-Video's, the paper's) as VideoUNets."""

from pathlib import Path

from rcv.models.presets import get_preset
from rcv.models.sources import WEIGHTS, find_weights, misfit, read_config, read_weights, unet_folder
from rcv.models.unet import VideoUNet


def convert(source, output, preset=None, allow_pickle=False):
    """Write the published checkpoint `source` as a VideoUNet folder `output` (config.json, safetensors).

    Parameters
    ----------
    source : path
        A UNet folder, a pipeline folder, or a weights file with config.json beside it.
    output : path
        A folder, made if need be; `VideoUNet.from_pretrained(output)` loads it.
    preset : str or Preset, optional
        Guessed from the weights' names if not given.
    allow_pickle : bool
        Whether to read .bin and .pt files, as the published programs write them: tensors only, nothing is run.

    Returns
    -------
    VideoUNet
        The model written, in the checkpoint's precision.
    """
    unet = load_published(source, preset, allow_pickle=allow_pickle)
    unet.save_pretrained(output)
    return unet


def load_published(source, preset=None, *, allow_pickle=False):
    """Return the published checkpoint `source` as a VideoUNet; parameters and errors as `convert`.

    Raises
    ------
    ValueError
        If files are missing, or a pickle was not asked for, or names or shapes differ from the preset's.
    """
    source = Path(source)
    if source.is_file():
        folder, weights = source.parent, source
        if not (folder / "config.json").is_file():
            raise ValueError(
                f"{source} has no config.json beside it, which names the widths and heads of its UNet"
            )
    else:
        folder = unet_folder(source)
        weights = find_weights(folder, (WEIGHTS, "pytorch_model", "model"), allow_pickle)
    if weights.name.endswith(".index.json"):
        raise ValueError(f"{folder} holds its weights in shards; published checkpoints are one file")
    state = read_weights(weights, allow_pickle)
    state = {name.removeprefix("module."): value for name, value in state.items()}
    unet = VideoUNet.from_config(read_config(folder), preset=get_preset(preset or guess_preset(state)))
    if faults := misfit(unet.state_dict(), state):
        raise ValueError(f"{weights} is not a checkpoint of preset {unet.preset.name!r}: {faults}")
    unet.load_state_dict(state)
    return unet.to(state["conv_in.weight"].dtype)


def guess_preset(state):
    """Return the name of the preset whose published program wrote the state dict `state`.

    Raises
    ------
    ValueError
        For the weights of another program.
    """
    if any("conv_gate" in name or "conv1d" in name for name in state):
        raise ValueError("these are weights of LAMP, whose temporal convolutions rcv has no counterpart of")
    if any("memory_update_layer" in name for name in state):
        return "published"
    if any("attn_temp" in name for name in state):
        return "tune-a-video"
    raise ValueError(
        "the weights have neither attn_temp nor memory_update_layer: no video checkpoint that rcv knows; "
        "VideoUNet.from_pretrained_2d inflates 2D UNets"
    )
