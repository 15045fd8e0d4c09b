"""Settings that users write: validated, refused by name with the nearest known one, kept as YAML."""

import difflib
import os
import re
from pathlib import Path
from typing import ClassVar

import yaml
from pydantic import BaseModel, ConfigDict, model_validator

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""Names of PyTorch's dtypes by precision; this module doesn't import torch."""


def nearest(name, known):
    """Return ', did you mean X?' for the member of `known` closest to `name`, or an empty string."""
    close = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else ""


def checked_name(kind, name, known):
    """Return `name`; ValueError that suggests the nearest of `known` if it is none of them."""
    if name not in known:
        raise ValueError(f"unknown {kind} {name!r}{nearest(name, known)} (known: {', '.join(known)})")
    return name


def parse_size(size):
    """Return (height, width) of "320x512", "256" (both sides), a number or a pair; ValueError for anything else."""
    if isinstance(size, int) or (isinstance(size, str) and re.fullmatch(r"\d+", size.strip())):
        size = (int(size), int(size))
    if isinstance(size, str):
        match = re.fullmatch(r"\s*[(\[]?\s*(\d+)\s*[x×, ]\s*(\d+)\s*[)\]]?\s*", size)
        if not match:
            raise ValueError(f"{size!r} is no size; expected HEIGHTxWIDTH, such as 320x512")
        size = (int(match[1]), int(match[2]))
    if size is not None and any(isinstance(side, int) and side < 1 for side in size):
        raise ValueError(f"sides must be at least 1 pixel, given {tuple(size)}")
    return size


def read_settings(path):
    """Return the mapping that a YAML file holds ({} for an empty one); ValueError for anything else, by name."""
    path = Path(path)
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such configuration file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable as YAML: {error}") from None
    if settings is not None and not isinstance(settings, dict):
        raise ValueError(f"{path} holds a {type(settings).__name__}, expected 'name: value' lines")
    return settings or {}


class Config(BaseModel):
    """Base of all settings: unknown names are errors that suggest the nearest known name."""

    model_config = ConfigDict(extra="forbid", validate_default=True, use_attribute_docstrings=False)

    shipped: ClassVar[Path | None] = None
    """Folder of YAML files that are known by their names."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_names(cls, settings):
        if isinstance(settings, dict):
            for name in settings:
                if name not in cls.model_fields:
                    known = ", ".join(cls.model_fields)
                    raise ValueError(
                        f"unknown setting {name!r}{nearest(name, cls.model_fields)} (known: {known})"
                    )
        return settings

    @classmethod
    def shipped_names(cls):
        """Return the names of the settings that come with the package."""
        names = () if cls.shipped is None else (file.stem for file in cls.shipped.glob("*.yaml"))
        return sorted(names, key=lambda name: (len(name), name))  # 8gb before 12gb

    @classmethod
    def read_file(cls, path):
        """Return the mapping in a YAML file, or in shipped settings given by name; ValueError as `read_settings`."""
        path = Path(path)
        if path.suffix or path.is_file() or cls.shipped is None:
            return read_settings(path)
        name = checked_name("configuration", str(path), cls.shipped_names())
        return read_settings(cls.shipped / f"{name}.yaml")

    @classmethod
    def read_yaml(cls, path):
        """Return the settings in a YAML file, such as `write_yaml` wrote, or shipped ones by name."""
        return cls.model_validate(cls.read_file(path))

    def write_yaml(self, path):
        """Write all settings to `path` (atomically), so that the file alone repeats the run."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
        os.replace(temporary, path)
