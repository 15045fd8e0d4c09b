"""Command-line flags made from a pydantic model: defaults, then a YAML file, then flags."""

import inspect
import types
import typing
from pathlib import Path

import typer
from pydantic import ValidationError
from pydantic_core import PydanticUndefined


class ConfigError(typer.BadParameter):
    """A value that the configuration refuses: shown as one line on the command line, never as a traceback."""


def command(model, run, *, arguments=()):
    """Return a function for typer whose flags are the fields of `model` and which calls `run(config)`.

    Parameters
    ----------
    model : type[rcv.config.Config]
        Flat model; each field's description becomes the flag's help.
    run : callable
        Called with the validated configuration. Its docstring is the command's help.
    arguments : sequence of str
        Fields given by position instead of by flag.
    """
    parameters = [_parameter(name, field, name in arguments) for name, field in model.model_fields.items()]
    names = ", ".join(model.shipped_names())
    shipped = f", or one that is shipped: {names}" if names else ""
    config_file = inspect.Parameter(
        "config",
        inspect.Parameter.KEYWORD_ONLY,
        default=typer.Option(
            None,
            help=f"YAML file with any of these settings{shipped}; flags override it.",
            dir_okay=False,
        ),
        annotation=Path | None,
    )
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)

    def run_command(context, config, **values):
        given = {
            name: value
            for name, value in values.items()
            if context.get_parameter_source(name).name != "DEFAULT"
        }
        run(resolve(model, config, given))

    run_command.__signature__ = inspect.Signature([context, *parameters, config_file])
    run_command.__doc__ = run.__doc__
    run_command.__name__ = run.__name__
    return run_command


def resolve(model, config_file, given):
    """Return `model` validated from a YAML file (or None) overridden by the values in the dict `given`."""
    try:
        settings = model.read_file(config_file) if config_file is not None else {}
        return model.model_validate({**settings, **given})
    except ValidationError as error:
        raise ConfigError(_sentences(error)) from None
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _parameter(name, field, positional):
    default = None if field.default is PydanticUndefined else field.default
    if field.default_factory is not None:
        default = field.default_factory()
    if positional:
        declaration = typer.Argument(default, help=field.description)
    else:
        declaration = typer.Option(default, help=field.description)
    annotation = _flag_type(field.annotation, default)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=declaration, annotation=annotation)


def _flag_type(annotation, default):
    """The type that typer parses: unions and literals become text, which pydantic then reads."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(annotation) if member is not type(None)]
        inner = members[0] if len(members) == 1 else str
        return _flag_type(inner, default) | None
    if origin is list:
        return list[_flag_type(typing.get_args(annotation)[0], None)]
    if annotation in (bool, int, float, str, Path):
        return annotation
    return str


def _sentences(error):
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{name}: {message}" if name else message)
    return "; ".join(lines)
