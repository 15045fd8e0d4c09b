"""Runs as processes: one a folder, stopped and taken up, whoever started them. A stand-in for `rcv finetune` trains."""

import os
import signal
import sys
import time

import pytest

from rcv.app import runs as runs_module
from rcv.app.runs import IDLE, STARTING, STOPPING, TRAINING, Runs
from rcv.cli.options import ConfigError
from rcv.training.config import FinetuneConfig
from rcv.training.lock import FolderBusyError, folder_holder, folder_lock

STAND_IN = """
import pathlib, shutil, signal, sys, time
import yaml
from rcv.training.lock import folder_lock
config = yaml.safe_load(pathlib.Path(sys.argv[-1]).read_text())
if config["seed"] == 13:
    sys.exit("error: the base\\nis of another kind")
if config["seed"] == 14:
    time.sleep(60)
stop, output = [], pathlib.Path(config["output"])
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
with folder_lock(output):
    shutil.copyfile(sys.argv[-1], output / "config.yaml")
    while len(stop) == 0:
        time.sleep(0.01)
    time.sleep(config["steps"] / 100)
(output / "stopped").write_text(str(len(stop)))
sys.exit(130)
"""


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setattr(runs_module, "COMMAND", (sys.executable, "-c", STAND_IN))
    runs = Runs(tmp_path)
    yield runs
    for process in runs._processes.values():
        process.kill()
        process.wait()


def wait_for(state, runs, name):
    end = time.monotonic() + 60
    while runs.state(name) != state:
        assert time.monotonic() < end, (state, runs.state(name), runs.said(name))
        time.sleep(0.02)


def test_a_run_is_started_stopped_and_taken_up(runs, tmp_path):
    runs.start(" birds ", {"steps": 30})
    assert runs.state("birds") in (STARTING, TRAINING)
    assert runs.names() == ["birds"]
    wait_for(TRAINING, runs, "birds")
    runs.stop("birds")
    runs.stop("birds")  # a second click
    assert runs.state("birds") == STOPPING
    wait_for(IDLE, runs, "birds")
    assert (tmp_path / "birds" / "stopped").read_text() == "1"  # a second signal would cut a step in half
    assert runs.failure("birds") is None

    runs.resume("birds")
    wait_for(TRAINING, runs, "birds")
    assert FinetuneConfig.read_yaml(tmp_path / "birds" / "config.yaml").steps == 30
    with pytest.raises(FolderBusyError, match="'birds' is running already"):
        runs.start("birds", {"steps": 7})
    assert FinetuneConfig.read_yaml(tmp_path / ".app" / "birds.yaml").steps == 30


def test_another_app_sees_the_run_and_stops_it(runs, tmp_path):
    runs.start("birds", {"steps": 1})
    wait_for(TRAINING, runs, "birds")
    other = Runs(tmp_path)
    assert other.state("birds") == TRAINING
    with pytest.raises(FolderBusyError):
        other.resume("birds")
    other.stop("birds")
    wait_for(IDLE, other, "birds")
    wait_for(IDLE, runs, "birds")
    with pytest.raises(ValueError, match="not running"):
        other.stop("birds")


def test_what_a_failed_run_said_is_kept(runs):
    runs.start("birds", {"seed": 13})
    wait_for(IDLE, runs, "birds")
    assert runs.failure("birds") == "the base\nis of another kind"
    assert runs.said("birds").startswith("error:")


def test_a_run_that_is_still_loading_stops_too(runs):
    runs.start("birds", {"seed": 14})
    assert runs.state("birds") == STARTING
    runs.stop("birds")
    wait_for(IDLE, runs, "birds")
    assert runs.failure("birds") is None


def test_refused_settings_start_nothing(runs, tmp_path):
    with pytest.raises(ConfigError, match="'animal walking'"):
        runs.start("birds", {"theme": "animal walkin"})
    with pytest.raises(ValueError, match="no run 'birds'"):
        runs.resume("birds")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["", "..", "../birds", "/tmp/birds", ".app", "a/b", "a\0b", "birds.", "videos", None]
)
def test_a_name_is_a_plain_folder_name(runs, name):
    with pytest.raises(ValueError, match="cannot name a run"):
        runs.path(name)


def test_the_holder_of_a_folder(tmp_path):
    assert folder_holder(tmp_path) is None
    with folder_lock(tmp_path):
        assert folder_holder(tmp_path).startswith(f"{os.getpid()} on ")
    assert folder_holder(tmp_path) is None
    # a killed run leaves its name, and another process may have its number by now
    host = os.uname().nodename
    for process in (os.getpid(), 2**22 + 1):
        (tmp_path / ".lock.owner").write_text(f"{process} on {host}\n")
        assert folder_holder(tmp_path) is None
    with folder_lock(tmp_path):
        assert folder_holder(tmp_path) is not None


def test_a_killed_run_is_not_running(runs):
    runs.start("birds", {})
    wait_for(TRAINING, runs, "birds")
    os.kill(int(folder_holder(runs.path("birds")).split()[0]), signal.SIGKILL)
    wait_for(IDLE, runs, "birds")
    assert "-9" in runs.failure("birds")
