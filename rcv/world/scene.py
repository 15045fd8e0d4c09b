"""Scenes: what is shown, its caption and back, and the combinations held out of pretraining."""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from .backgrounds import BACKGROUNDS, PLACES, allowed_colors
from .palette import COLORS
from .themes import SHAPE_OF, TABLE

THEMES: tuple[str, ...] = tuple(TABLE)
SUBJECTS: dict[str, tuple[str, ...]] = {name: theme.subjects for name, theme in TABLE.items()}
# One combination of subject, colour and background in this many is held out of pretraining.
HELD_OUT_ONE_IN = 10
_WEARS_COLOR = ("man", "woman", "child")


@dataclass(frozen=True)
class Motion:
    """How a scene moves; times in seconds, places and lengths in frame widths (x) and heights (y).

    Attributes
    ----------
    period : float
        Length of the gait, wing beat, half rotor turn, burst or flow cycle.
    phase : float
        Cycles already gone at time 0, in [0, 1).
    speed : float
        Frame widths a second to the right over the ground.
    x, y : float
        The subject's place when it passes the middle of its way.
    scale : float
        Size factor around 1.
    """

    period: float
    phase: float
    speed: float
    x: float
    y: float
    scale: float


@dataclass(frozen=True)
class Scene:
    """One captioned scene of the motion world; the same scene always gives the same pixels.

    Raises
    ------
    ValueError
        For an unknown theme, subject, colour or background (naming the nearest), and for a colour that
        would not stand out from the background.
    """

    theme: str
    subject: str
    color: str
    background: str
    seed: int = 0

    def __post_init__(self):
        theme = _known("theme", self.theme, THEMES)
        object.__setattr__(self, "theme", theme)
        _known(f"subject of {theme!r}", self.subject, SUBJECTS[theme])
        _known("color", self.color, COLORS)
        _known("background", self.background, BACKGROUNDS)
        allowed = colors_for(theme, self.background)
        if self.color not in allowed:
            raise ValueError(
                f"color {self.color!r} does not stand out from background {self.background!r} in theme "
                f"{theme!r}; choose one of {', '.join(allowed)}"
            )

    @cached_property
    def motion(self) -> Motion:
        """The scene's motion, drawn from its seed."""
        spec = TABLE[self.theme]
        rng = np.random.default_rng([self.seed % 2**63, THEMES.index(self.theme)])
        u = rng.random(6).tolist()
        low, high = spec.speeds
        return Motion(
            period=spec.periods[int(u[0] * len(spec.periods))],
            phase=u[1],
            speed=low + (high - low) * u[2],
            x=0.5 + 0.04 * (u[3] - 0.5),
            y=spec.height + 0.04 * (u[4] - 0.5),
            scale=0.96 + 0.12 * u[5],
        )

    @property
    def shape(self) -> str:
        """Shape class: the name of the first subject with this silhouette."""
        return SHAPE_OF.get(self.subject, self.subject)

    @property
    def caption(self) -> str:
        """E.g. ``"a red fox walking in the desert"``."""
        phrases = TABLE[self.theme].phrases
        digest = hashlib.sha256(f"phrase {self.seed}".encode()).digest()
        return caption_of(self.theme, self.subject, self.color, self.background, digest[0] % len(phrases))


def caption_of(theme: str, subject: str, color: str, background: str, phrase: int = 0) -> str:
    """The caption in the theme's phrase number ``phrase``."""
    spec = TABLE[theme]
    if subject in _WEARS_COLOR:
        thing = f"{subject} in {color}"
    elif subject.endswith("waterfall"):
        thing = subject.replace("waterfall", f"{color} waterfall")
    else:
        thing = f"{color} {subject}"
    article = "an" if thing[0] in "aeiou" else "a"
    place = PLACES[background].prepositions[spec.flying]
    return spec.phrases[phrase].format(thing=f"{article} {thing}", place=place)


@lru_cache(maxsize=1)
def _captions() -> dict[str, dict[str, str]]:
    return {
        caption_of(theme, subject, color, background, phrase): {
            "theme": theme,
            "subject": subject,
            "color": color,
            "background": background,
        }
        for theme, spec in TABLE.items()
        for subject in spec.subjects
        for color in COLORS
        for background in BACKGROUNDS
        for phrase in range(len(spec.phrases))
    }


def parse_caption(caption: str) -> dict[str, str]:
    """Attributes ``theme``, ``subject``, ``color`` and ``background`` of a caption of this world.

    Raises
    ------
    ValueError
        If no scene has this caption (naming the nearest caption).
    """
    text = " ".join(caption.lower().strip(" .").split())
    try:
        return dict(_captions()[text])
    except KeyError:
        near = difflib.get_close_matches(text, _captions(), n=1, cutoff=0.5)
        hint = f"; the nearest is {near[0]!r}" if near else "; e.g. 'a red fox walking in the desert'"
        raise ValueError(f"caption {caption!r} describes no scene of the motion world{hint}") from None


def all_captions() -> tuple[str, ...]:
    """Every caption of the world."""
    return tuple(_captions())


@lru_cache(maxsize=1)
def vocabulary() -> tuple[str, ...]:
    """All words that captions are made of, sorted."""
    return tuple(sorted({word for caption in _captions() for word in caption.split()}))


@lru_cache(maxsize=256)
def colors_for(theme: str, background: str) -> tuple[str, ...]:
    """Colours that stand out from ``background`` as ``theme`` lights it."""
    return allowed_colors(background, TABLE[theme].light, cliff=theme == "waterfalls")


def _known(what: str, name: str, names: tuple[str, ...]) -> str:
    plain = name.replace("-", " ").replace("_", " ") if isinstance(name, str) else name
    if plain in names:
        return plain
    near = difflib.get_close_matches(str(plain), names, n=1, cutoff=0.0)
    raise ValueError(f"unknown {what} {name!r}; did you mean {near[0]!r}? Known: {', '.join(names)}")


def get_theme_name(name: str) -> str:
    """The name in THEMES that `name` means (hyphens and underscores stand for spaces); ValueError names the nearest."""
    return _known("theme", name, THEMES)


def is_held_out(scene: Scene) -> bool:
    """Whether the scene's subject, colour and background are one of the combinations kept from pretraining.

    A fixed rule: the first 8 bytes of SHA-256 of ``"subject|color|background"`` divisible by 10.
    """
    return _held_out(scene.subject, scene.color, scene.background)


def _held_out(subject: str, color: str, background: str) -> bool:
    digest = hashlib.sha256(f"{subject}|{color}|{background}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT_ONE_IN == 0


def sample_scene(
    theme: str | None,
    seed: int,
    subject: str | None = None,
    color: str | None = None,
    background: str | None = None,
    held_out: bool | None = None,
) -> Scene:
    """A scene drawn from ``seed``; what is given is kept.

    Parameters
    ----------
    theme : str or None
        None draws one of the eight.
    held_out : bool or None
        True: only combinations held out of pretraining; False: only the others; None: any.

    Raises
    ------
    ValueError
        For unknown names, or when no combination meets what is given.
    """
    rng = np.random.default_rng([seed % 2**63, 5])
    if theme is None:
        names = THEMES if subject is None else tuple(t for t in THEMES if subject in SUBJECTS[t])
        theme = names[int(rng.integers(len(names)))] if names else THEMES[0]
    theme = _known("theme", theme, THEMES)
    subjects = (
        SUBJECTS[theme] if subject is None else (_known(f"subject of {theme!r}", subject, SUBJECTS[theme]),)
    )
    colors = COLORS if color is None else (_known("color", color, COLORS),)
    places = BACKGROUNDS if background is None else (_known("background", background, BACKGROUNDS),)

    def free(s: str, b: str) -> list[str]:
        return [
            c
            for c in colors_for(theme, b)
            if c in colors and (held_out is None or _held_out(s, c, b) == held_out)
        ]

    for _ in range(64):
        s, b = subjects[int(rng.integers(len(subjects)))], places[int(rng.integers(len(places)))]
        choices = free(s, b)
        if choices:
            return Scene(theme, s, choices[int(rng.integers(len(choices)))], b, seed)
    every = [(s, c, b) for s in subjects for b in places for c in free(s, b)]
    if not every:
        if color is not None and background is not None and held_out is None:
            return Scene(theme, subjects[0], color, background, seed)
        raise ValueError(
            f"no scene of {theme!r} has subject={subject!r}, color={color!r}, background={background!r}, "
            f"held_out={held_out!r}; give fewer of them"
        )
    s, c, b = every[int(rng.integers(len(every)))]
    return Scene(theme, s, c, b, seed)


def held_out_scenes(count: int, seed: int = 0) -> list[Scene]:
    """``count`` scenes with different held-out combinations, the themes in turn.

    Raises
    ------
    ValueError
        If ``count`` exceeds the number of held-out combinations.
    """
    scenes: list[Scene] = []
    seen: set[tuple[str, str, str]] = set()
    tries = 0
    while len(scenes) < count:
        scene = sample_scene(THEMES[len(scenes) % len(THEMES)], seed * 1_000_003 + tries, held_out=True)
        tries += 1
        if tries > 200 * count + 1000:
            raise ValueError(f"count={count} exceeds the held-out combinations found ({len(scenes)})")
        key = (scene.subject, scene.color, scene.background)
        if key not in seen:
            seen.add(key)
            scenes.append(scene)
    return scenes
