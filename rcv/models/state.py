"""What a window of frames hands to the next one: a long clip in windows gives the output of a single pass over it."""

import dataclasses
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

# Sequences that one call of PyTorch's attention takes on a GPU, where each is a block of the grid's last axis.
MOST_SEQUENCES = 1 << 15


class FrameCount:
    """The number of frames of the call in progress and what it carries, shared by all modules of one UNet.

    Frames are folded into the batch, so that a tensor no longer tells how many there are. The count belongs to a call,
    not to the model: recomputation during the backward must see that of its own forward (`pinned`), and the state that
    it began with, `carried`. Blocks leave their LayerStates that the call ends with in `kept`, unless it is None.
    """

    def __init__(self):
        self.value, self.carried, self.kept = 1, CarriedState({}, 0), None

    @contextmanager
    def pinned(self, frames, carried, kept=None):
        """Let every module see these inside the `with` block."""
        before = self.value, self.carried, self.kept
        self.value, self.carried, self.kept = frames, carried, kept
        try:
            yield
        finally:
            self.value, self.carried, self.kept = before

    def pinning(self, function):
        """Return `function` as one that sees the present count and carried state whenever it is called."""
        frames, carried = self.value, self.carried

        def call(*args):  # nobody asks for the state while it runs in the backward
            with self.pinned(frames, carried, self.kept):
                return function(*args)

        return call


@dataclass
class LayerState:
    """State of one transformer block after a window, detached: no gradient goes back into the window.

    Fields that the preset has no use for are None. N, C: tokens and channels of a frame at the block's level.

    Attributes
    ----------
    first : Tensor [B, 1, N, C]
        z of the video's first frame, to which all windows attend.
    former : Tensor [B, 1, N, C] or None
        z of the last frame seen: the former frame of the next window's first one.
    h : Tensor [B, N, C] or None
        The recurrent state that the last frame's memory was read from, float32. The last frame's own step is taken
        in the next window, whose gradient thus reaches the cell's weights from its first frame on.
    output : Tensor [B, 1, N, C] or None
        The last frame's attention output before `to_out`, which a state with drive "feedback" reads.
    recent : Tensor [B, K, N, C] or None
        Inputs of the temporal attention for the last K frames, K at most its window less one. Their keys and values
        are projected again: twice as large, and trained.
    """

    first: torch.Tensor
    former: torch.Tensor | None = None
    h: torch.Tensor | None = None
    output: torch.Tensor | None = None
    recent: torch.Tensor | None = None

    def tensors(self):
        """Return {field: tensor} of the fields that are not None."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass
class CarriedState:
    """State of a VideoUNet between two windows of one batch of videos; a window returns a new one.

    Attributes
    ----------
    layers : dict of str to LayerState
        By the name of the transformer block in the UNet.
    frames : int
        Frames seen so far.
    read_once : bool
        Whether a block's entry is taken out once the block has run: a state is as large as many frames, and so two of
        them need not be there at once. For sampling; recomputation in the backward reads twice.
    """

    layers: dict[str, LayerState]
    frames: int
    read_once: bool = False

    @property
    def nbytes(self):
        """Bytes of all tensors."""
        return sum(t.nbytes for layer in self.layers.values() for t in layer.tensors().values())

    def to(self, device, non_blocking=False):
        """Return the state on another device; dtypes stay as they are."""
        return self._changed(lambda t: t.to(device, non_blocking=non_blocking))

    def let_go(self, block):
        """Take the entry of a block that has run out of a state that is read once."""
        if self.read_once:
            self.layers.pop(block, None)

    def reset(self):
        """Return a state that has forgotten all frames but the first and the last.

        The recurrent state is zero and the temporal attention has no former frames; the first frame stays the anchor.
        """
        layers = {
            name: dataclasses.replace(
                layer,
                h=None if layer.h is None else torch.zeros_like(layer.h),
                recent=None if layer.recent is None else layer.recent[:, :0],
            )
            for name, layer in self.layers.items()
        }
        return CarriedState(layers, self.frames)

    def _changed(self, change):
        layers = {
            name: LayerState(**{field: change(t) for field, t in layer.tensors().items()})
            for name, layer in self.layers.items()
        }
        return CarriedState(layers, self.frames)


@dataclass
class VideoUNetOutput(UNet2DConditionOutput):
    """`sample` [B,C,F,H,W], and the `state` after it if it was asked for."""

    state: CarriedState | None = None


def check_carries(preset, advice="preset 'streaming' does"):
    """Raise a ValueError that says why, with this advice, for a preset whose frames depend on later ones."""
    if reasons := preset.why_not_carried():
        raise ValueError(
            f"preset {preset.name!r} carries no state from window to window: {'; '.join(reasons)}; {advice}"
        )


def check_state(state, layers, batch, device):
    """Raise a ValueError unless `state` is a CarriedState of these layers, `batch` videos, on `device`."""
    if not isinstance(state, CarriedState):
        raise ValueError(
            f"state is a {type(state).__name__}, expected the CarriedState that a call with return_state=True returned"
        )
    if state.read_once and not state.layers:
        raise ValueError(
            "state was read once (read_once=True) and is empty; pass the state that that call returned"
        )
    if set(state.layers) != set(layers):
        strange = sorted(set(state.layers) ^ set(layers))
        raise ValueError(
            f"state is of another model: {len(state.layers)} layers, expected {len(layers)}; only one of the two has "
            f"{strange[0]!r}"
        )
    for name, layer in state.layers.items():
        for field, tensor in layer.tensors().items():
            if tensor.shape[0] != batch:
                raise ValueError(
                    f"state has {tensor.shape[0]} videos ({field} of {name}), sample has {batch}; with guidance both "
                    "hold every video twice"
                )
            if tensor.device != device:
                raise ValueError(
                    f"state is on {tensor.device} ({field} of {name}), sample on {device}; state.to({str(device)!r}) "
                    "moves it"
                )


def layer_state(frames, block, x):
    """Return the LayerState that a call began with for a block whose tokens are x [B,F,N,C], in x's dtype, or None.

    Raises
    ------
    ValueError
        For a state of frames of another size.
    """
    layer = frames.carried.layers.get(block)
    if layer is None:
        return None
    for field, tensor in layer.tensors().items():
        if tensor.shape[-2:] != x.shape[-2:]:
            raise ValueError(
                f"state: {field} of {block} is for {tensor.shape[-2]} tokens a frame and {tensor.shape[-1]} channels, "
                f"this sample has {x.shape[-2]} and {x.shape[-1]}: a state belongs to one model, height and width"
            )
    return LayerState(
        **{field: tensor if field == "h" else tensor.to(x.dtype) for field, tensor in layer.tensors().items()}
    )


def kept(tensor):
    """Return a copy to carry: no gradient, and no hold on the larger tensor that `tensor` is a view of."""
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def no_memory(z):
    """Return the recurrent state before any frame, float32 zeros [B,N,C], for z [B,F,N,C]."""
    return torch.zeros_like(z[:, 0], dtype=torch.promote_types(z.dtype, torch.float32))


def causal_window_attention(q, k, v, window, scale):
    """Attention of every token over its own last `window` frames, the present one included.

    Parameters
    ----------
    q : Tensor [B, F, N, H, D]
    k, v : Tensor [B, K + F, N, H, D]
        Of K frames before q's as well.
    window : int
    scale : float

    Returns
    -------
    Tensor [B, F, N, H, D]
    """
    frames, total = q.shape[1], k.shape[1]
    query = torch.arange(total - frames, total, device=q.device)[:, None]
    key = torch.arange(total, device=q.device)
    mask = (key <= query) & (key > query - window)
    sequences = [t.permute(0, 2, 3, 1, 4).flatten(0, 1) for t in (q, k, v)]
    chunks = zip(*(t.split(MOST_SEQUENCES) for t in sequences), strict=True)
    o = [F.scaled_dot_product_attention(*chunk, attn_mask=mask, scale=scale) for chunk in chunks]
    o = o[0] if len(o) == 1 else torch.cat(o)
    return o.unflatten(0, (q.shape[0], q.shape[2])).permute(0, 3, 1, 2, 4)
