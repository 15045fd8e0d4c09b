"""Where the embedded models lie: text-to-image, and image-text."""

from pathlib import Path

FOLDER = Path(__file__).parent.parent / "assets" / "world"


def model_path():
    """Return the folder of the embedded model: a StableDiffusionPipeline in diffusers' layout, half precision.

    Raises
    ------
    FileNotFoundError
        If the package was installed without it.
    """
    if not (FOLDER / "model_index.json").is_file():
        raise FileNotFoundError(
            f"the embedded model is missing from {FOLDER}; reinstall rcv-video, or train it with `rcv world pretrain` "
            "and give its folder as the base"
        )
    return FOLDER


def clip_path():
    """Return the folder of the motion world's small CLIP: CLIPModel and CLIPProcessor in transformers' layout.

    Raises
    ------
    FileNotFoundError
        If the package was installed without it.
    """
    folder = FOLDER / "clip"
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"the motion world's CLIP is missing from {folder}; reinstall rcv-video, or train it with "
            "`rcv world pretrain-clip` and give its folder"
        )
    return folder
