"""Where the embedded text-to-image model lies."""

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
