"""What is compared: arms, each a way to train and to sample, and the studies that they belong to."""

from dataclasses import dataclass, field

from rcv.config import checked_name

CHOICE_THEMES = ("human running", "fireworks", "helicopter flying", "raining")
REPORT_THEMES = ("animal walking", "birds flying", "horse running", "waterfalls")
"""Choices are made on other themes and other seeds than the table is reported on."""
CHOICE_SEEDS = (0, 1, 2)
REPORT_SEEDS = (10, 11, 12)


@dataclass(frozen=True)
class Arm:
    """One way to train and to sample.

    Attributes
    ----------
    name : str
        Shown in the report, unique in its study.
    preset : str or None
        None: no model at all, the rendered clips of the prompts themselves.
    settings : dict
        Of FinetuneConfig, beyond the study's.
    one_shot : bool
        Trained on the first clip alone.
    guided : bool
        Sampling starts from the DDIM inversion of the first clip, the prompt empty, as in Tune-A-Video.
    cut : str or None
        What is taken from the memory at inference. "readout": W_ho and b_a are zero, memory tokens are their base;
        "reset": the state forgets everything before the frame that it is read after.
    noise : dict
        Of the initial noise: strategy, alpha, form; else independent.
    frames : int or None
        Frames that are sampled; as many as trained on if None.
    trained_frames : int or None
        Frames that are trained on; the study's if None.
    groups : tuple of str
        Kinds of prompts: "seen" takes the training's subjects and places in new combinations; "unseen subject",
        "unseen place", "unseen both".
    hide_subject : bool
        Whether one subject of the theme, drawn from the seed, is kept out of the clips.
    """

    name: str
    preset: str | None
    settings: dict = field(default_factory=dict)
    one_shot: bool = False
    guided: bool = False
    cut: str | None = None
    noise: dict = field(default_factory=dict)
    frames: int | None = None
    trained_frames: int | None = None
    groups: tuple[str, ...] = ("seen",)
    hide_subject: bool = False


@dataclass(frozen=True)
class Study:
    """Arms that are compared on the same themes and seeds.

    `pairs` are (own, rival): the names of arms whose difference is reported; `about` says what the study shows.
    """

    name: str
    about: str
    arms: tuple[Arm, ...]
    themes: tuple[str, ...]
    seeds: tuple[int, ...]
    pairs: tuple[tuple[str, str], ...]


TRUE_CLIPS = Arm("true clips", None)
LONGER = 32
ON_LONGER = f", trained on {LONGER} frames"
BASELINE = Arm("tune-a-video", "tune-a-video")
RECURRENT = Arm("recurrent", "recurrent")
TABLE_ARMS = (
    Arm("tune-a-video raw, one shot", "tune-a-video", one_shot=True),
    Arm("tune-a-video guided, one shot", "tune-a-video", one_shot=True, guided=True),
    BASELINE,
    Arm("tune-a-video, debiased loss", "tune-a-video", {"debiased_loss": 1.0}),
    Arm("published", "published"),
    Arm("paper", "paper"),
    RECURRENT,
    Arm("first-frame", "first-frame"),
)


def _choice_arms():
    """Cell x drive x base, then one thing at a time."""
    arms = [RECURRENT]
    for cell in ("mingru", "rglru", "rnn"):
        for drive in ("input", "feedback"):
            for base in ("former", "none"):
                changes = {"cell": cell, "drive": drive, "base": base}
                if base == "none":
                    changes["logit_bias"] = -4.0
                text = ", ".join(f"{k}={v}" for k, v in changes.items())
                if (cell, drive, base) != ("mingru", "input", "former"):
                    arms.append(Arm(f"{cell}, {drive}, {base}", f"recurrent({text})"))
    arms += [
        Arm("no bias", "recurrent(base=none)"),
        Arm("joint norms", "recurrent(group_norm=joint)"),
        Arm("causal", "streaming"),
        Arm("plain loss", "recurrent", {"debiased_loss": 0.0}),
        Arm("captions dropped", "recurrent", {"caption_drop": 0.1}),
        Arm("flipped", "recurrent", {"flip": 0.5}),
        Arm("running mean", "recurrent", {"ema_decay": 0.99}),
        Arm("a third of the learning rate", "recurrent", {"learning_rate": 1e-3}),
        Arm("three times the learning rate", "recurrent", {"learning_rate": 1e-2}),
    ]
    for strategy in ("shared", "autoregressive"):
        noise = {"strategy": strategy, "alpha": 0.5, "form": "variance_preserving"}
        settings = {"noise": strategy, "noise_alpha": 0.5}
        arms.append(Arm(f"{strategy} noise, trained", "recurrent", settings, noise=noise))
    return tuple(arms)


def _noise_arms():
    """Figure 6: initial noise of adapters that were trained with independent noise, as the paper's were."""
    arms = [RECURRENT]
    for form in ("variance_preserving", "paper"):
        for strategy in ("shared", "autoregressive"):
            for alpha in (0.2, 0.5, 0.8):
                noise = {"strategy": strategy, "alpha": alpha, "form": form}
                short = "VP" if form == "variance_preserving" else "paper"
                arms.append(Arm(f"{strategy} {alpha} ({short})", "recurrent", noise=noise))
    return tuple(arms)


def _unseen_arms():
    groups = ("seen", "unseen subject", "unseen place", "unseen both")
    return tuple(
        Arm(f"{preset}: {group}", preset, groups=(group,), hide_subject=True)
        for preset in ("recurrent", "tune-a-video")
        for group in groups
    )


def _long_arms():
    presets = ("recurrent", "streaming", "tune-a-video")
    arms = []
    for frames in (8, 16, 32, 64):
        arms.append(Arm(f"{TRUE_CLIPS.name}: {frames} frames", None, frames=frames))
        arms += [Arm(f"{preset}: {frames} frames", preset, frames=frames) for preset in presets]
    for frames in (32, 64):
        arms += [
            Arm(f"{preset}{ON_LONGER}: {frames} frames", preset, frames=frames, trained_frames=LONGER)
            for preset in presets
        ]
    return tuple(arms)


def _long_pairs():
    arms = _long_arms()
    pairs = []
    for trained_on in ("", ON_LONGER):
        for own in ("recurrent", "streaming"):
            pairs += _like_with_like(arms, own + trained_on, "tune-a-video" + trained_on)
    return pairs


def _memory_arms():
    return (
        RECURRENT,
        Arm("read-out zero", "recurrent", cut="readout"),
        Arm("state reset each frame", "recurrent", cut="reset"),
    )


def _step_arms(steps=(75, 150, 600, 1200)):
    presets = ("recurrent", "tune-a-video")
    more = [Arm(f"{p}: {n} steps", p, {"steps": n}) for n in steps for p in presets]
    return (RECURRENT, BASELINE, *more)


def _against(own, arms):
    """Pairs of one arm with all others."""
    return tuple((own, arm.name) for arm in arms if arm.name != own and arm.preset is not None)


def _like_with_like(arms, own, rival="tune-a-video"):
    """Pairs of arms of two presets that are otherwise the same: "PRESET" and "PRESET: SETTING"."""
    names = [arm.name for arm in arms]
    mirrored = [(name, name.replace(own, rival, 1)) for name in names if name.partition(":")[0] == own]
    return tuple(pair for pair in mirrored if pair[1] in names)


def _study(name, about, arms, pairs, themes=REPORT_THEMES, seeds=REPORT_SEEDS):
    return Study(name, about, tuple(arms), themes, seeds, tuple(pairs))


STUDIES = {
    study.name: study
    for study in (
        _study(
            "table1",
            "The paper's Table 1: all arms, on themes and seeds that no choice was made on.",
            (TRUE_CLIPS, *TABLE_ARMS),
            _against("recurrent", TABLE_ARMS),
        ),
        _study(
            "choices",
            "Which recurrence, which noise: variants of `recurrent` on themes of their own.",
            (TRUE_CLIPS, *_choice_arms()),
            _against("recurrent", _choice_arms()),
            CHOICE_THEMES,
            CHOICE_SEEDS,
        ),
        _study(
            "memory",
            "What the memory contributes: cut off at inference.",
            _memory_arms(),
            _against("recurrent", _memory_arms()),
        ),
        _study(
            "unseen",
            "Subjects and places that no clip shows (figure 7).",
            _unseen_arms(),
            _like_with_like(_unseen_arms(), "recurrent"),
        ),
        _study(
            "noise",
            "Initial noise and alpha, in the paper's and in the variance-preserving form (figure 6).",
            _noise_arms(),
            _against("recurrent", _noise_arms()),
        ),
        _study(
            "long",
            "Videos of 8 to 64 frames; longer ones than trained on in windows, as rcv generate makes them.",
            _long_arms(),
            _long_pairs(),
        ),
        _study(
            "steps",
            "Training steps (figure 5).",
            _step_arms(),
            _like_with_like(_step_arms(), "recurrent"),
        ),
    )
}


def chosen_study(config, name):
    """Return the Study called `name` with the themes, seeds and arms that a ReproduceConfig asks for.

    Raises
    ------
    ValueError
        An arm that the study does not have.
    """
    study = STUDIES[name]
    arms = study.arms
    if config.arms:
        known = [arm.name for arm in arms]
        wanted = {checked_name(f"arm of {name}", arm, known) for arm in config.arms}
        lengths = {arm.frames for arm in arms if arm.name in wanted}
        arms = tuple(
            arm for arm in arms if arm.name in wanted or (arm.preset is None and arm.frames in lengths)
        )
    names = {arm.name for arm in arms}
    pairs = tuple(pair for pair in study.pairs if names >= set(pair))
    if not pairs:
        own, *rivals = (arm.name for arm in arms if arm.preset is not None)
        pairs = tuple((own, rival) for rival in rivals)
    themes, seeds = tuple(config.themes) or study.themes, tuple(config.seeds) or study.seeds
    return Study(study.name, study.about, arms, themes, seeds, pairs)
