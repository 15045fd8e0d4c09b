"""Finetuning runs of a folder: started as processes of `rcv finetune`, which outlive the app and the browser."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from rcv.cli.options import resolve
from rcv.training.config import FinetuneConfig
from rcv.training.disk import writing
from rcv.training.lock import FolderBusyError, folder_holder

COMMAND = (sys.executable, "-m", "rcv")
OWN_FOLDER, VIDEOS, UPLOADS = ".app", "videos", "uploads"
NOT_RUNS = (VIDEOS, UPLOADS)
LOG_BYTES = 4000
IDLE, STARTING, TRAINING, STOPPING = "idle", "starting", "training", "stopping"


class Runs:
    """The runs in one folder, each in a folder of its own. Safe to use from several threads.

    Settings and output of the processes stand in FOLDER/.app, so that nothing is written into a run's folder before
    its base is loaded and its clips are checked.

    Parameters
    ----------
    folder : path
        Made when the first run starts.
    """

    def __init__(self, folder):
        self.folder = Path(folder).expanduser().resolve()
        self._processes, self._asked_to_stop = {}, {}  # by name; process ids
        self._lock = threading.Lock()

    def names(self):
        """Return the names of the runs that hold settings, or are being started, the newest first."""
        found = {path.parent.name: path.stat().st_mtime for path in self.folder.glob("*/config.yaml")}
        with self._lock:
            found.update({name: float("inf") for name, process in self._processes.items() if _alive(process)})
        return sorted(found, key=lambda name: (-found[name], name))

    def adapters(self):
        """Return the folders of the runs that have finished at least once, the newest first."""
        files = sorted(self.folder.glob("*/adapter.safetensors"), key=lambda file: -file.stat().st_mtime)
        return [str(file.parent) for file in files]

    def path(self, name):
        """Return the folder of the run called `name`; ValueError for a name that is no plain folder name."""
        name = (name or "").strip()
        if not re.fullmatch(r"\w[\w .-]{0,99}", name) or name.endswith(".") or name in NOT_RUNS:
            raise ValueError(
                f"{name!r} cannot name a run; expected letters, digits, spaces and - . _, such as birds-1 "
                f"(not {' or '.join(NOT_RUNS)}, which are the app's)"
            )
        return self.folder / name

    def start(self, name, settings):
        """Start a run of these settings (a dict, as FinetuneConfig takes them) in a process of its own.

        It writes into FOLDER/NAME, whatever they say of `output`.

        Raises
        ------
        ConfigError
            A setting that FinetuneConfig refuses.
        FolderBusyError
            A run is writing into the folder already, whoever started it.
        """
        output = self.path(name)
        self._launch(output.name, resolve(FinetuneConfig, None, {**settings, "output": str(output)}))

    def resume(self, name):
        """Go on with a run that was stopped or killed, with its own settings; errors as `start`."""
        output = self.path(name)
        saved = output / "config.yaml"
        source = saved if saved.is_file() else self._own(name, "yaml")
        if not source.is_file():
            raise ValueError(f"there is no run {name!r} in {self.folder} to go on with; start one")
        self._launch(output.name, resolve(FinetuneConfig, source, {"output": str(output)}))

    def stop(self, name):
        """Ask the run to stop after the step it is at and to keep a checkpoint; ValueError if none is running.

        SIGTERM and not SIGINT, which the trainer takes for the same: a shell that starts the app in the background has
        SIGINT ignored, its processes inherit that, and a run that is still loading would not notice it.
        """
        name = self.path(name).name
        with self._lock:
            process_id = self._process_id(name)
            if process_id is None:
                raise ValueError(f"the run {name!r} is not running")
            if self._asked_to_stop.get(name) != process_id:  # a second signal would cut the step in half
                self._asked_to_stop[name] = process_id
                os.kill(process_id, signal.SIGTERM)

    def state(self, name):
        """Return "starting", "training", "stopping" or "idle"."""
        name = self.path(name).name
        with self._lock:
            training = folder_holder(self.path(name)) is not None
            if not training and not _alive(self._processes.get(name)):
                return IDLE
            if name in self._asked_to_stop and self._asked_to_stop[name] == self._process_id(name):
                return STOPPING
            return TRAINING if training else STARTING

    def failure(self, name):
        """Return what the run's last process here said when it failed; None if it did not fail, or was stopped."""
        name = self.path(name).name
        with self._lock:
            process = self._processes.get(name)
            if process is None or process.poll() in (None, 0) or name in self._asked_to_stop:
                return None
        said = self.said(name)
        _, mark, message = said.rpartition("error: ")
        return message.strip() if mark else said or f"the process ended with status {process.returncode}"

    def said(self, name):
        """Return the end of what the run's last process here wrote on its output."""
        try:
            with open(self._own(name, "log"), "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_BYTES))
                return file.read().decode(errors="replace").strip()
        except FileNotFoundError:
            return ""

    def _own(self, name, suffix):
        return self.folder / OWN_FOLDER / f"{self.path(name).name}.{suffix}"

    def _launch(self, name, config):
        """Start the process, unless one is running: the settings and the log of that one would be lost."""
        settings, log = self._own(name, "yaml"), self._own(name, "log")
        with self._lock:
            if _alive(self._processes.get(name)) or folder_holder(self.path(name)) is not None:
                raise FolderBusyError(
                    f"the run {name!r} is running already; wait for it, stop it, or choose another name"
                )
            with writing(settings):
                config.write_yaml(settings)
                said = open(log, "wb")  # noqa: SIM115 (closed below)
            with said:
                self._processes[name] = subprocess.Popen(
                    [*COMMAND, "finetune", "--config", str(settings)],
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C of the app is not meant for the runs
                )
            self._asked_to_stop.pop(name, None)

    def _process_id(self, name):
        """Return the process of the run, ours or another's on this machine, or None; ValueError for one elsewhere."""
        process = self._processes.get(name)
        if _alive(process):
            return process.pid
        holder = folder_holder(self.path(name))
        if holder is None:
            return None
        process_id, _, host = holder.partition(" on ")
        if host != socket.gethostname() or not process_id.isdigit():
            raise ValueError(f"the run {name!r} belongs to process {holder}; stop it there")
        return int(process_id)


def _alive(process):
    return process is not None and process.poll() is None
