"""Which scenes an arm is asked for: combinations that its clips don't show."""

from rcv.world.clips import clip_scenes
from rcv.world.scene import SHAPE_OF, SUBJECTS, sample_scene

ATTEMPTS = 20_000


def hidden_subject(theme, seed):
    """Return the subject that a seed keeps out of the clips: one whose silhouette no other subject has."""
    shared = {*SHAPE_OF, *SHAPE_OF.values()}
    alone = [subject for subject in SUBJECTS[theme] if subject not in shared]
    return alone[seed % len(alone)]


def prompt_scenes(theme, seed, count, group, clip_count, hidden=None):
    """Return `count` Scenes to generate for a theme and seed, none of whose combinations a clip shows.

    Parameters
    ----------
    group : str
        "seen": subjects and places of the clips, newly combined. "unseen subject": the hidden one in places of the
        clips; "unseen place": subjects of the clips in places of none; "unseen both".
    clip_count : int
        Of the clips rendered with this seed.
    hidden : str, optional
        The subject that is kept out of them.

    Raises
    ------
    ValueError
        Nothing of the theme is left, such as a place that no clip shows.
    """
    clips = clip_scenes(theme, clip_count, seed, () if hidden is None else (hidden,))
    shown = {(scene.subject, scene.color, scene.background) for scene in clips}
    subjects = {scene.subject for scene in clips}
    places = {scene.background for scene in clips}
    new_subject, new_place = (
        group in ("unseen subject", "unseen both"),
        group in ("unseen place", "unseen both"),
    )
    scenes = []
    for attempt in range(ATTEMPTS):
        scene = sample_scene(
            theme, 1_000_003 * (seed + 1) + 500_000 + attempt, subject=hidden if new_subject else None
        )
        combination = (scene.subject, scene.color, scene.background)
        if combination in shown or (scene.background in places) == new_place:
            continue
        if new_subject or scene.subject in subjects:
            shown.add(combination)
            scenes.append(scene)
        if len(scenes) == count:
            return scenes
    raise ValueError(
        f"{theme!r} has no {count} scenes of the kind {group!r} beside {clip_count} clips of seed {seed}"
    )
