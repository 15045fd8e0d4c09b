"""The programs that rcv can run, each as one dataclass: what frames attend to, what they remember, what trains.

A preset is all that tells one video UNet from another. Its fields by formula, with z the normed hidden
state, h the recurrent state and m the memory tokens of frame i:

    h_i = cell(h_{i-1}, u_i),  h_0 = 0          u_i = z_i (drive "input") or o_i before `to_out` (drive "feedback")
    m_i = base_i + W_ho h_{i-1} + b_a           base_i = 0 ("none") or z_{i-1} ("former")
    o_i = softmax(q_i [K of the frames in `attends`]^T / sqrt(D) + bias) [V of them]
"""

import dataclasses
import json
import re
from dataclasses import dataclass

import yaml

from rcv.config import checked_name

ATTENDS = (("first",), ("first", "former"), ("first", "memory"), ("first", "former", "memory"))
CELLS = (None, "rnn", "mingru", "rglru", "published")
BASELINE_TRAINED = ("attn1.to_q", "attn2.to_q", "attn_temp")


@dataclass(frozen=True)
class Preset:
    """What an inflated UNet computes and trains beyond its 2D original.

    Parameters
    ----------
    name : str
        Shown to users and written into adapters.
    attends : tuple of str
        Slots of the first attention: "first", "former" (the frame before; itself for frame 1), "memory".
    cell : str or None
        "rnn", "mingru", "rglru", or "published" (the memory of the paper's repository, which also overwrites its
        first frame; only with all three slots). None exactly where `attends` has no memory.
    activation : str
        "tanh" or "relu", of the `rnn` cell.
    drive : str
        "input": the state reads the normed input z, so that one scan serves all frames. "feedback": it reads the
        attention's output before `to_out`, frame after frame.
    base : str
        "none", or "former": memory tokens are a learned correction of the former frame's.
    logit_bias : float or None
        Start of a learned logit bias per head on the memory slot (base "none" only); None for no bias.
    group_norm : str
        "joint": statistics of ResNet norms and of the last norm over all frames, as Tune-A-Video; or "per_frame".
    temporal_attention : bool
        Whether blocks end in a self-attention over frames (`norm_temp`, `attn_temp`).
    temporal_window : int or None
        That self-attention sees the present frame and so many less one before it. None: all frames of the call, later
        ones too, as in Tune-A-Video.
    trained : tuple of str
        Module or parameter paths inside a transformer block; everything else is frozen.
    debiased_loss : float
        What MotionDirector's debiased loss weighs in training unless a run says otherwise.
    """

    name: str
    attends: tuple[str, ...] = ("first", "memory")
    cell: str | None = None
    activation: str = "tanh"
    drive: str = "input"
    base: str = "none"
    logit_bias: float | None = None
    group_norm: str = "per_frame"
    temporal_attention: bool = True
    temporal_window: int | None = None
    trained: tuple[str, ...] = (*BASELINE_TRAINED, "attn1.memory", "attn1.logit_bias")
    debiased_loss: float = 0.0

    def __post_init__(self):
        for field in ("attends", "trained"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        for field, known in (
            ("attends", ATTENDS),
            ("cell", CELLS),
            ("activation", ("tanh", "relu")),
            ("drive", ("input", "feedback")),
            ("base", ("none", "former")),
            ("group_norm", ("joint", "per_frame")),
        ):
            if getattr(self, field) not in known:
                listed = ", ".join(map(repr, known))
                raise ValueError(
                    f"preset {self.name!r}: {field} is {getattr(self, field)!r}, expected one of {listed}"
                )
        if ("memory" in self.attends) != (self.cell is not None):
            raise ValueError(f"preset {self.name!r}: a cell needs 'memory' in attends and the other way round; "
                             f"given cell={self.cell!r}, attends={self.attends!r}")  # fmt: skip
        if (self.cell == "published") != (len(self.attends) == 3):
            raise ValueError(f"preset {self.name!r}: attends=('first', 'former', 'memory') and cell='published' "
                             "come only together")  # fmt: skip
        if self.logit_bias is not None and (self.cell in (None, "published") or self.base != "none"):
            raise ValueError(f"preset {self.name!r}: logit_bias needs a memory with base='none'; zero memory tokens of "
                             "base 'former' are the former frame's own and stay unbiased")  # fmt: skip
        window = self.temporal_window
        if window is not None and (isinstance(window, bool) or not isinstance(window, int) or window < 1):
            raise ValueError(
                f"preset {self.name!r}: temporal_window is {window!r}, expected a number of frames, 1 or more"
            )
        if not isinstance(self.debiased_loss, int | float) or not self.debiased_loss >= 0:
            raise ValueError(
                f"preset {self.name!r}: debiased_loss is {self.debiased_loss!r}, expected a weight, 0 or more"
            )
        if window is not None and not self.temporal_attention:
            raise ValueError(f"preset {self.name!r}: temporal_window needs temporal_attention")

    def why_not_carried(self):
        """Return what keeps a clip in windows, with the state carried, from being the clip in one pass: sentences.

        An empty list for a preset whose frames depend on the frames before them alone.
        """
        reasons = []
        if self.cell == "published":
            reasons.append("its program overwrites the first frame with that frame's attention output")
        if self.group_norm == "joint":
            reasons.append("its joint GroupNorms take their statistics over all frames of a clip")
        if self.temporal_attention and self.temporal_window is None:
            reasons.append("its temporal attention reads later frames too (temporal_window is None)")
        return reasons

    def trains(self, name):
        """Return whether the parameter or module path `name` belongs to the trained set."""
        dotted = f".{name}."
        return any(f".{part}." in dotted for part in self.trained)


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(  # the paper's baseline, numerically equal to the published program
            name="tune-a-video",
            attends=("first", "former"),
            group_norm="joint",
            trained=BASELINE_TRAINED,
        ),
        Preset(  # what the paper's repository really runs; its memory starts dead and stays so
            name="published",
            attends=("first", "former", "memory"),
            cell="published",
            drive="feedback",
            group_norm="joint",
            trained=(*BASELINE_TRAINED, "attn1.memory_update_layer"),
        ),
        Preset(  # the paper's formulas with a start that can learn
            name="paper",
            cell="rnn",
            logit_bias=-4.0,
            group_norm="joint",
        ),
        Preset(name="recurrent", cell="mingru", base="former", debiased_loss=1.0),
        # `recurrent` for long clips: every frame depends on those before it alone, so that windows carry its state
        Preset(name="streaming", cell="mingru", base="former", temporal_window=16, debiased_loss=1.0),
        Preset(  # the attention of LAMP and Text2Video-Zero
            name="first-frame",
            attends=("first",),
            temporal_attention=False,
            trained=("attn1.to_q", "attn_temp"),
        ),
    )
}


def get_preset(preset):
    """Return the Preset called `preset`; a Preset, or a mapping of its fields (as saved in a config), also serves.

    A name may change fields of a preset: "recurrent(cell=rglru, drive=feedback)" is the preset of that name.

    Raises
    ------
    ValueError
        For an unknown name (suggesting the nearest) or an unknown field.
    """
    if isinstance(preset, Preset):
        return preset
    if isinstance(preset, str):
        if match := re.fullmatch(r"\s*([\w-]+)\s*\((.*)\)\s*", preset):
            return _changed(*match.groups())
        return PRESETS[checked_name("preset", preset, PRESETS)]
    if not hasattr(preset, "keys"):
        raise ValueError(
            f"preset is a {type(preset).__name__}, expected a name, a Preset or a mapping of its fields"
        )
    known = {field.name for field in dataclasses.fields(Preset)}
    if unknown := sorted(set(preset) - known):
        checked_name("preset field", unknown[0], sorted(known))
    return Preset(**preset)


def _changed(name, changes):
    """The preset `name` with fields changed by "field=value, ...", named after both; values are read as YAML."""
    base = PRESETS[checked_name("preset", name, PRESETS)]
    known = [
        field.name for field in dataclasses.fields(Preset) if field.name not in ("name", "attends", "trained")
    ]
    values = {}
    for change in filter(None, (part.strip() for part in changes.split(","))):
        field, equals, value = (part.strip() for part in change.partition("="))
        checked_name(f"field of preset {name!r}", field, known)
        if not equals or not value:
            raise ValueError(f"preset {name!r}: {change!r} is no change, expected FIELD=VALUE")
        values[field] = yaml.safe_load(value)
    if not values:
        return base
    written = {
        field: value if isinstance(value, str) else json.dumps(value) for field, value in values.items()
    }
    written = ", ".join(f"{field}={value}" for field, value in sorted(written.items()))
    return dataclasses.replace(base, name=f"{name}({written})", **values)
