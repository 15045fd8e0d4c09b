"""Flags made from settings: precedence, types, and what is said about mistakes."""

from pathlib import Path

import pytest
import typer
from pydantic import Field
from typer.testing import CliRunner

from rcv.cli.options import ConfigError, command, resolve
from rcv.config import Config


class Settings(Config):
    names: list[str] = Field([], description="Names by position.")
    steps: int = Field(300, ge=1, description="How many.")
    rate: float | None = Field(None, description="How fast.")
    size: tuple[int, int] | None = Field(None, description="Pair.")
    quick: bool = Field(False, description="Or slow.")
    output: Path = Field(Path("out"), description="Where.")


@pytest.fixture
def invoke():
    seen = []
    app = typer.Typer()
    app.command()(command(Settings, seen.append, arguments=("names",)))

    def invoke(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)
        return result, seen[-1] if seen else None

    return invoke


def test_defaults(invoke):
    result, settings = invoke()
    assert result.exit_code == 0, result.output
    assert settings == Settings()


def test_flags_override_the_file_and_the_file_the_defaults(invoke, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("steps: 7\nrate: 0.5\nquick: true\n")
    result, settings = invoke("a", "b", "--config", file, "--steps", 9)
    assert result.exit_code == 0, result.output
    assert settings == Settings(names=["a", "b"], steps=9, rate=0.5, quick=True)


def test_a_flag_equal_to_its_default_still_overrides_the_file(invoke, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("steps: 7\nquick: true\n")
    _, settings = invoke("--config", file, "--steps", 300, "--no-quick")
    assert (settings.steps, settings.quick) == (300, False)


def test_what_was_written_can_be_read_again(invoke, tmp_path):
    written = Settings(names=["x"], size=(3, 4), output=tmp_path / "o")
    written.write_yaml(tmp_path / "settings.yaml")
    _, settings = invoke("--config", tmp_path / "settings.yaml")
    assert settings == written


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz: 7\n", "unknown setting 'stepz', did you mean 'steps'?"),
        ("steps: many\n", "steps: Input should be a valid integer"),
        ("steps: 0\n", "steps: Input should be greater than or equal to 1"),
        ("- 1\n", "expected 'name: value' lines"),
        ("steps: [\n", "not readable as YAML"),
    ],
)
def test_mistakes_in_the_file_are_named(invoke, tmp_path, text, message):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    result, settings = invoke("--config", file)
    assert result.exit_code == 2
    assert settings is None
    assert message in " ".join(result.output.replace("│", " ").split())


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.yaml: no such configuration file"):
        resolve(Settings, tmp_path / "gone.yaml", {})


def test_an_unknown_flag_suggests_the_nearest(invoke):
    result, _ = invoke("--stepz", 3)
    assert result.exit_code == 2
    assert "--steps" in result.output


def test_help_shows_each_field_with_its_default(invoke):
    result, _ = invoke("--help")
    for word in ("--steps", "How many.", "300", "--quick", "--config"):
        assert word in result.output
