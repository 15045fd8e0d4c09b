"""A user study on one machine: blind pairs of videos, the paper's four ratings, answers in SQLite, means and tests."""

import importlib

_HOME = {
    "Answers": "answers",
    "StudyError": "pairs",
    "find_pairs": "pairs",
    "make_server": "server",
    "summary": "results",
}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module 'rcv.study' has no attribute {name!r}")
    return getattr(importlib.import_module(f"rcv.study.{_HOME[name]}"), name)
