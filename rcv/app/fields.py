"""From what stands in the app's fields to settings, and from errors to messages."""

import functools
import inspect

import gradio
import yaml

from rcv.cli.options import ConfigError

MENDABLE = (ConfigError, ValueError, OSError, MemoryError)
"""What the command line prints as one line."""


def settings_of(fields, more):
    """Return the settings that are filled in, and those of the lines in `more` ("name: value", as in --config).

    Raises
    ------
    ValueError
        `more` is not YAML, or names a setting that has a field which is filled in too.
    """
    given = {name: value for name, value in fields.items() if value not in (None, "", [])}
    try:
        written = yaml.safe_load(more or "") or {}
    except yaml.YAMLError as error:
        raise ValueError(f"more settings: not readable as YAML: {error}") from None
    if not isinstance(written, dict):
        raise ValueError(f"more settings: expected 'name: value' lines, got {more.strip()!r}")
    if twice := sorted(given.keys() & written.keys()):
        raise ValueError(f"more settings: {', '.join(twice)} stands in a field too; say it once")
    return {**given, **written}


def whole(number):
    """Return a number field's value as an int where it is whole (fields give floats), None if it is empty."""
    return int(number) if number is not None and float(number).is_integer() else number


def told(function):
    """Wrap an event's function so that errors which a user can mend are a message on the page, without a traceback."""

    @functools.wraps(function)
    def run(*arguments, **named):
        try:
            return function(*arguments, **named)
        except MENDABLE as error:
            raise gradio.Error(
                str(error) or type(error).__name__, duration=None, print_exception=False
            ) from None

    run.__signature__ = inspect.signature(function)
    return run
