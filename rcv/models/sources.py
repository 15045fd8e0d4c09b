"""Where 2D UNets come from: folders, pipeline folders and single files, each refused with a reason if it won't do."""

import json
import pickle
from pathlib import Path

import safetensors
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from safetensors.torch import load_file

WEIGHTS = "diffusion_pytorch_model"
PICKLES = (".bin", ".ckpt", ".pt", ".pth")
EXPECTED = "expected the UNet of a Stable Diffusion 1.x or 2.x text-to-image model"

# configuration of other model families, by key: the values that Stable Diffusion 1.x and 2.x have
PLAIN = {
    "act_fn": ("silu", "swish"),
    "addition_embed_type": (None,),
    "attention_type": ("default",),
    "cross_attention_norm": (None,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim_type": (None,),
    "mid_block_only_cross_attention": (None, False),
    "resnet_time_scale_shift": ("default",),
}


def load_unet_2d(path, subfolder=None, dtype=None, variant=None, config=None, allow_pickle=False):
    """Return the UNet2DConditionModel at `path`; parameters and errors as `VideoUNet.from_pretrained_2d`."""
    path = Path(path)
    if path.is_file():
        return _from_single_file(path, dtype, config, allow_pickle)
    folder = unet_folder(path, subfolder)
    _check_kind(folder)
    weights = find_weights(folder, (WEIGHTS,), allow_pickle, variant)
    try:
        unet, info = UNet2DConditionModel.from_pretrained(
            folder,
            dtype=dtype,
            variant=variant,
            local_files_only=True,
            use_safetensors=weights.suffix not in PICKLES,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"the weights in {folder} cannot be read as its config.json describes: {error}"
        ) from error
    for fault in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[fault]:
            raise ValueError(
                f"the weights in {folder} do not fit its config.json: {len(info[fault])} "
                f"{fault.replace('_', ' ')}, such as {next(iter(info[fault]))}"
            )
    return unet


def unet_folder(path, subfolder=None):
    """Return the folder below `path` with a UNet's config.json: itself, `subfolder`, or the `unet` of a pipeline."""
    path = Path(path)
    if not path.exists():
        raise ValueError(
            f"{path} does not exist; expected a folder in diffusers' layout or a single checkpoint file"
        )
    if (
        subfolder is None
        and not (path / "config.json").is_file()
        and (path / "unet" / "config.json").is_file()
    ):
        subfolder = "unet"
    folder = path / subfolder if subfolder else path
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder} has no config.json ({_contents(folder)}); expected a UNet folder or a pipeline folder with a "
            "`unet` in diffusers' layout"
        )
    return folder


def read_config(folder):
    """Return config.json of `folder` as a dict."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'} is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{folder / 'config.json'} holds a {type(config).__name__}, expected a mapping")
    return config


def blocks_2d(config):
    """Return a UNet configuration with the 3D block names of Tune-A-Video's as those of the 2D blocks they inflate."""
    if isinstance(config, str):
        return config.replace("Block3D", "Block2D")
    if isinstance(config, dict):
        return {key: blocks_2d(value) for key, value in config.items()}
    return type(config)(map(blocks_2d, config)) if isinstance(config, list | tuple) else config


def refuse_other_kinds(unet):
    """Raise a ValueError for a UNet2DConditionModel of another kind than Stable Diffusion 1.x and 2.x."""
    for key, expected in PLAIN.items():
        if unet.config[key] not in expected:
            raise ValueError(
                f"the UNet's config has {key}={unet.config[key]!r}, not {expected[0]!r} as Stable Diffusion 1.x and "
                f"2.x; {EXPECTED}"
            )
    blocks = [module for module in unet.modules() if isinstance(module, BasicTransformerBlock)]
    if not blocks:
        raise ValueError(f"the UNet has no transformer block; {EXPECTED}")
    if any(block.only_cross_attention or block.attn2 is None for block in blocks):
        raise ValueError(
            "the UNet's blocks lack a self-attention or a text attention (only_cross_attention is set, as in the x4 "
            f"upscaler); {EXPECTED}"
        )
    inside = {id(attention) for block in blocks for attention in (block.attn1, block.attn2)}
    for name, module in unet.named_modules():
        if isinstance(module, Attention) and id(module) not in inside:
            raise ValueError(
                f"the UNet has an attention outside its transformer blocks, {name!r}; {EXPECTED}"
            )


def find_weights(folder, stems, allow_pickle=False, variant=None):
    """Return the weights file of `folder` named after one of `stems`, safetensors before pickles."""
    part = f".{variant}" if variant else ""
    for stem in stems:
        whole, shards = f"{stem}{part}.safetensors", f"{stem}.safetensors.index{part}.json"
        for name in (whole, shards):
            if (folder / name).is_file():
                return folder / name
    pickles = [folder / f"{stem}{part}{suffix}" for stem in stems for suffix in PICKLES]
    pickles = [file for file in pickles if file.is_file()]
    if not pickles:
        raise ValueError(
            f"{folder} has no weights ({_contents(folder)}); expected {stems[0]}{part}.safetensors"
        )
    if not allow_pickle:
        raise _pickle_refusal(pickles[0])
    return pickles[0]


def read_weights(file, allow_pickle=False):
    """Return the tensors of a .safetensors file, or of a pickle if allowed (tensors only, nothing in it is run)."""
    file = Path(file)
    if file.suffix not in (*PICKLES, ".safetensors"):
        raise ValueError(f"{file} is no checkpoint; expected .safetensors or {', '.join(PICKLES)}")
    if file.suffix in PICKLES and not allow_pickle:
        raise _pickle_refusal(file)
    try:
        state = (
            load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
        )
    except (pickle.UnpicklingError, EOFError, OSError, RuntimeError, safetensors.SafetensorError) as error:
        raise ValueError(f"{file} cannot be read as weights: {error}") from error
    while isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if (
        not isinstance(state, dict)
        or not state
        or not all(torch.is_tensor(value) for value in state.values())
    ):
        raise ValueError(f"{file} holds no state dict of tensors")
    return state


def misfit(own, given):
    """Return what keeps the state dict `given` from loading as `own`, in words; "" if nothing does."""
    faults = {
        "missing": sorted(set(own) - set(given)),
        "unexpected": sorted(set(given) - set(own)),
        "of another shape": sorted(k for k in set(own) & set(given) if own[k].shape != given[k].shape),
    }
    return "; ".join(f"{len(names)} {fault}, such as {names[0]}" for fault, names in faults.items() if names)


def _contents(folder):
    found = (
        ", ".join(sorted(entry.name for entry in folder.iterdir())[:8])
        if folder.is_dir()
        else "no such folder"
    )
    return f"found: {found or 'nothing'}"


def _pickle_refusal(file):
    return ValueError(
        f"{file} is a pickle, which can run code when loaded; convert it to safetensors, or read its tensors alone "
        "with allow_pickle=True (--allow-pickle)"
    )


def _check_kind(folder):
    class_name = read_config(folder).get("_class_name")
    if class_name == "VideoUNet":
        raise ValueError(f"{folder} is already a video UNet; load it with VideoUNet.from_pretrained")
    if class_name == "UNet3DConditionModel":
        raise ValueError(
            f"{folder} holds a UNet3DConditionModel; if Tune-A-Video or the paper's repository wrote it, "
            "`rcv convert` makes a VideoUNet of it"
        )
    if class_name != "UNet2DConditionModel":
        raise ValueError(f"{folder} holds a {class_name}, not a UNet2DConditionModel; {EXPECTED}")


def _from_single_file(path, dtype, config, allow_pickle):
    state = read_weights(path, allow_pickle)
    if config is None:
        raise ValueError(
            f"{path} is a single file, whose architecture stands elsewhere: pass config=FOLDER, a local UNet or "
            "pipeline folder of the same model family with its config.json"
        )
    folder = unet_folder(config)
    _check_kind(folder)
    if "conv_in.weight" in state:  # diffusers' own names; checkpoints of the original programs have others
        with torch.device("meta"):
            expected = UNet2DConditionModel.from_config(read_config(folder)).state_dict()
        if faults := misfit(expected, state):
            raise ValueError(f"{path} does not fit the UNet that {folder} describes: {faults}")
    try:
        unet = UNet2DConditionModel.from_single_file(
            state, config=str(folder), dtype=dtype, local_files_only=True
        )
    except Exception as error:  # it fails in as many ways as there are files of another kind
        raise ValueError(f"{path} cannot be read as the UNet that {folder} describes: {error}") from error
    absent = [name for name, parameter in unet.named_parameters() if parameter.is_meta]
    if absent:
        raise ValueError(f"{path} does not fit the UNet that {folder} describes: it lacks {len(absent)} weights, "
                         f"such as {absent[0]}")  # fmt: skip
    return unet
