"""Clips that are not trained on: which ones, and when their loss says that a run has learned what it will."""

import math

import torch

from rcv.training.draws import draw_generator
from rcv.training.setup import open_clips


def validation_split(settings, clips):
    """Return the clips to train on and the clips to validate on (None without validation).

    Parameters
    ----------
    settings : FinetuneConfig
        Resolved. `hold_out` clips are drawn by the seed alone; or `validation_clips` is a folder of others.
    clips : ClipFolder
        All clips of the run.

    Raises
    ------
    ValueError
        More are held out than there are, or a clip would be trained on and validated on.
    """
    if settings.validation_clips is not None:
        others = open_clips(settings.model_copy(update={"clips": settings.validation_clips}))
        trained_on = {clip.content for clip in clips.clips}  # whatever its caption or name
        both = [clip.name for clip in others.clips if clip.content in trained_on]
        if both:
            raise ValueError(
                f"validation_clips: {', '.join(both)} in {settings.validation_clips} "
                f"{'is' if len(both) == 1 else 'are'} among the clips that are trained on; their loss would say nothing"
            )
        return clips, others
    if not settings.hold_out:
        return clips, None
    count = len(clips)
    if settings.hold_out >= count:
        raise ValueError(
            f"hold_out: {settings.hold_out} of {count} clip{'s' if count > 1 else ''} would leave none to train on; "
            f"expected at most {count - 1}"
        )
    order = torch.randperm(count, generator=draw_generator(settings.seed, "hold out")).tolist()
    held = sorted(order[: settings.hold_out])
    return clips.subset([number for number in range(count) if number not in held]), clips.subset(held)


class EarlyStop:
    """The best validation so far, and whether the last ones were no better for too long.

    Parameters
    ----------
    patience : int
        Evaluations in a row without a lower loss after which the run is over. 0: never, and nothing is kept.

    Attributes
    ----------
    best_step, best_loss : int and float, or None
    weights : dict of str to torch.Tensor, or None
        The weights of that step, in main memory.
    """

    def __init__(self, patience):
        self.patience = patience
        self.best_step = self.best_loss = self.weights = None
        self.waited = 0

    def take(self, step, loss, weights):
        """Compare the validation loss after `step` steps with the best one; `weights` {name: tensor} are copied."""
        if not self.patience:
            return
        if math.isfinite(loss) and (self.best_loss is None or loss < self.best_loss):
            self.best_step, self.best_loss, self.waited = step, loss, 0
            self.weights = {name: weight.to("cpu", copy=True) for name, weight in weights.items()}
        else:
            self.waited += 1

    @property
    def over(self):
        """Whether patience is at its end."""
        return bool(self.patience) and self.waited >= self.patience

    def state_dict(self):
        """Return all but the weights, as JSON can hold it."""
        return {"best_step": self.best_step, "best_loss": self.best_loss, "waited": self.waited}

    def load_state_dict(self, state, weights):
        """Take what `state_dict` returned, and the weights."""
        self.best_step, self.best_loss, self.waited = state["best_step"], state["best_loss"], state["waited"]
        self.weights = weights
