"""Scenes and captions: reproducible, complete, and held-out combinations apart."""

import pytest

from rcv.world import (
    BACKGROUNDS,
    COLORS,
    SUBJECTS,
    THEMES,
    Scene,
    held_out_scenes,
    is_held_out,
    parse_caption,
    sample_scene,
    vocabulary,
)
from rcv.world.scene import TABLE, all_captions, caption_of


def test_the_paper_s_eight_themes():
    assert set(THEMES) == {
        *("animal walking", "human running", "birds flying", "fireworks"),
        *("helicopter flying", "horse running", "raining", "waterfalls"),
    }


@pytest.mark.parametrize("theme", THEMES)
def test_captions_say_what_scenes_show(theme):
    for seed in range(60):
        scene = sample_scene(theme, seed)
        told = parse_caption(scene.caption)
        assert told == {
            "theme": theme,
            "subject": scene.subject,
            "color": scene.color,
            "background": scene.background,
        }
        assert set(scene.caption.split()) <= set(vocabulary())


def test_every_caption_is_read_back_as_what_it_was_made_of():
    words = set(vocabulary())
    for theme, spec in TABLE.items():
        for subject in spec.subjects:
            for color in COLORS:
                for background in BACKGROUNDS:
                    for phrase in range(len(spec.phrases)):
                        caption = caption_of(theme, subject, color, background, phrase)
                        told = parse_caption(caption)
                        assert tuple(told.values()) == (theme, subject, color, background)
                        assert words.issuperset(caption.split())
    assert {word for caption in all_captions() for word in caption.split()} == words


def test_the_seed_decides():
    assert sample_scene("fireworks", 3) == sample_scene("fireworks", 3)
    assert len({sample_scene("fireworks", seed).caption for seed in range(40)}) > 30


def test_every_subject_is_drawn_sooner_or_later():
    for theme in THEMES:
        assert {sample_scene(theme, seed).subject for seed in range(200)} == set(SUBJECTS[theme])


def test_what_is_given_is_kept():
    scene = sample_scene("animal walking", 0, subject="fox", color="red", background="snow")
    assert (scene.subject, scene.color, scene.background) == ("fox", "red", "snow")


@pytest.mark.parametrize("held_out", [True, False])
def test_held_out_combinations_are_apart(held_out):
    assert all(is_held_out(sample_scene(None, seed, held_out=held_out)) is held_out for seed in range(200))


def test_a_tenth_is_held_out():
    share = sum(is_held_out(sample_scene(None, seed)) for seed in range(2000)) / 2000
    assert 0.07 < share < 0.13


def test_held_out_scenes_are_different_combinations_of_all_themes():
    scenes = held_out_scenes(64)
    assert len({(scene.subject, scene.color, scene.background) for scene in scenes}) == 64
    assert {scene.theme for scene in scenes} == set(THEMES)
    assert all(map(is_held_out, scenes))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("animal wlking", "fox", "red", "snow"), "'animal walking'"),
        (("animal walking", "foxx", "red", "snow"), "'fox'"),
        (("animal walking", "fox", "rde", "snow"), "'red'"),
        (("animal walking", "fox", "red", "snwo"), "'snow'"),
        (("animal walking", "fox", "white", "snow"), "does not stand out"),
    ],
)
def test_a_scene_that_cannot_be_names_what_could(arguments, said):
    with pytest.raises(ValueError, match=said):
        Scene(*arguments)


def test_a_caption_of_another_world_names_the_nearest():
    with pytest.raises(ValueError, match="the nearest is 'a red fox walking in the desert'"):
        parse_caption("a red fox walks in the desert")


def test_every_colour_and_place_is_used_in_every_theme():
    for theme in THEMES:
        scenes = [sample_scene(theme, seed) for seed in range(600)]
        assert {scene.background for scene in scenes} == set(BACKGROUNDS)
        assert len({scene.color for scene in scenes}) >= len(COLORS) - 3
