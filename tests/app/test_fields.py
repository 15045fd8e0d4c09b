"""Fields into settings, errors into messages."""

import pytest

gradio = pytest.importorskip("gradio", reason="the extra app is not installed")

from rcv.app.fields import settings_of, told, whole  # noqa: E402


def test_empty_fields_say_nothing_and_lines_add_to_them():
    assert settings_of({"steps": 3, "size": "", "base": None, "seed": 0}, "") == {"steps": 3, "seed": 0}
    assert settings_of({"steps": 3}, "window: 4\nexclude_subject: [dog]") == {
        "steps": 3,
        "window": 4,
        "exclude_subject": ["dog"],
    }


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("steps: 4", "steps stands in a field too"),
        ("steps", "'name: value'"),
        ("a: [", "YAML"),
        ("- a", "'name: value'"),
    ],
)
def test_lines_that_are_no_settings_are_refused(more, said):
    with pytest.raises(ValueError, match=said):
        settings_of({"steps": 3}, more)


def test_numbers_of_fields_are_whole_where_they_can_be():
    assert [whole(3.0), whole(None), whole(0.5)] == [3, None, 0.5]
    assert type(whole(3.0)) is int


def test_errors_that_can_be_mended_are_messages():
    @told
    def fail(error):
        raise error

    for error in (ValueError("no clip"), OSError("disk full"), MemoryError("too large")):
        with pytest.raises(gradio.Error, match=str(error)):
            fail(error)
    with pytest.raises(KeyError):  # a bug is no message
        fail(KeyError("x"))
