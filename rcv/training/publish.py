"""Results on the Hugging Face Hub."""

from pathlib import Path

from rcv.diffusion.adapters import adapter_description
from rcv.training.adapter import ADAPTER_FILE
from rcv.training.export import MODEL_INDEX
from rcv.training.lora import LORA_FILE
from rcv.training.model_card import write_model_card
from rcv.training.samples import last_samples

RUN_FILES = (
    *(ADAPTER_FILE, "README.md", "losses.csv", "eval_losses.csv", "validation_losses.csv"),
    "curves.png",
)
"""What is uploaded of a run, with its last samples: neither clips nor checkpoints, nor the log and the settings,
which name folders; the card has those that tell what was trained."""


class PublishError(OSError):
    """The upload failed; says why and what to do."""


def push(folder, repo, *, public=False, license=None, message=None, api=None):
    """Upload a run's adapter with its card, an exported pipeline or a LoRA to the Hugging Face Hub.

    Parameters
    ----------
    folder : path
        What `finetune` or `rcv.training.export` wrote.
    repo : str
        "NAME" or "OWNER/NAME"; made if missing.
    public : bool
        Whether everybody may see a repository that is made here.
    license : str, optional
        Of the adapter, for its card: see `write_model_card`.
    message : str, optional
        Of the commit.
    api : huggingface_hub.HfApi, optional

    Returns
    -------
    str
        The address of what was uploaded.

    Raises
    ------
    ValueError
        A folder with nothing of ours; a licence for what has no card; a name that the Hub would not take.
    PublishError
        No token, no network, no permission.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    folder = Path(folder)
    patterns = _patterns(folder)
    if (folder / ADAPTER_FILE).is_file():
        write_model_card(folder, license)
    elif license is not None:
        raise ValueError(f"license: {folder} has no model card; a licence is written into that of a run")
    api = api or HfApi()
    if api.token is None and get_token() is None:
        raise PublishError(
            "no token for the Hugging Face Hub was found: make one that may write at "
            "https://huggingface.co/settings/tokens and call `hf auth login`, or set HF_TOKEN"
        )
    try:
        made = api.create_repo(repo, private=not public, exist_ok=True)
        commit = api.upload_folder(
            repo_id=made.repo_id,
            folder_path=folder,
            allow_patterns=patterns,
            commit_message=message or f"Results of rcv: {folder.resolve().name}",
        )
    except HFValidationError as error:
        raise ValueError(f"repo: {error}") from error
    except OfflineModeIsEnabled as error:
        raise PublishError("HF_HUB_OFFLINE is set, so that nothing is uploaded; unset it") from error
    except HfHubHTTPError as error:
        advice = {
            401: "the token is not valid: `hf auth login` saves another",
            403: f"the token may not write to {repo}: it needs the write permission, and you that for its owner",
        }.get(error.response.status_code, "nothing is lost: try again later")
        raise PublishError(f"the Hugging Face Hub refused: {advice} ({error})") from error
    except Exception as error:  # of the HTTP library that this version of huggingface_hub has
        reason = f"{type(error).__name__}: {error}"
        raise PublishError(
            f"the Hugging Face Hub cannot be reached ({reason}); nothing is lost: try again with a network"
        ) from error
    return commit.commit_url


def _patterns(folder):
    """The files to upload of what the folder holds; None for all of them."""
    if (folder / ADAPTER_FILE).is_file():
        shown = last_samples(folder, adapter_description(folder).get("steps"))
        samples = {path.parent.relative_to(folder).as_posix() for _, path in shown}
        return [*RUN_FILES, *(f"{name}/*" for name in samples)]
    if (folder / MODEL_INDEX).is_file():
        return None
    if (folder / LORA_FILE).is_file():
        return [LORA_FILE]
    raise ValueError(
        f"{folder} holds no {ADAPTER_FILE}, {MODEL_INDEX} or {LORA_FILE}; expected a run, or what `rcv export` wrote"
    )
