"""The optimizer of a run, and its state by the weights' names, as checkpoints keep it."""

import importlib

import torch


def make_optimizer(settings, weights):
    """Return the optimizer that settings name.

    Parameters
    ----------
    settings : FinetuneConfig
        Resolved. `adamw8bit` is bitsandbytes' AdamW8bit, which keeps its moments in blocks of 8 bits: a quarter of
        the memory (Dettmers et al., arXiv 2110.02861).
    weights : iterable of torch.nn.Parameter

    Raises
    ------
    ValueError
        `adamw8bit` where bitsandbytes cannot be imported.
    """
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else _adamw_8bit()
    return kind(
        weights,
        lr=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_epsilon,
        weight_decay=settings.weight_decay,
    )


def check_optimizer(settings):
    """Raise the ValueError of `make_optimizer`, before anything is loaded or written."""
    if settings.optimizer == "adamw8bit":
        _adamw_8bit()


def _adamw_8bit():
    try:
        return importlib.import_module("bitsandbytes").optim.AdamW8bit
    except (
        ImportError,
        RuntimeError,
        OSError,
        AttributeError,
    ) as error:  # whatever a broken CUDA set-up raises
        raise ValueError(
            f"optimizer: adamw8bit needs bitsandbytes, which cannot be imported here ({error}); "
            "pip install bitsandbytes, or use optimizer adamw"
        ) from None


def optimizer_state(optimizer, names):
    """Return the optimizer's state as {"weight/key": tensor} and {weight: {key: plain value}}.

    `names` are the weights' in the optimizer's order. bitsandbytes keeps its tensors in a dict of their own:
    "weight/dict/key".
    """
    tensors, plain = {}, {}
    for number, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if torch.is_tensor(value):
                tensors[f"{names[number]}/{key}"] = value
            elif isinstance(value, dict):
                tensors.update({f"{names[number]}/{key}/{inner}": t for inner, t in value.items()})
            else:
                plain.setdefault(names[number], {})[key] = value
    return tensors, plain


def load_optimizer_state(optimizer, names, tensors, plain):
    """Load what `optimizer_state` returned."""
    state = {number: dict(plain.get(name, {})) for number, name in enumerate(names)}
    numbers = {name: number for number, name in enumerate(names)}
    for path, tensor in tensors.items():
        name, *outer, key = path.split("/")
        place = state[numbers[name]]
        for part in outer:
            place = place.setdefault(part, {})
        place[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
