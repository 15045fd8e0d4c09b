"""Computing a cell: train (or find the training), sample, score."""

import json
import platform
import shutil
import time

import numpy as np
import torch

from rcv.reproduce.cells import write_result
from rcv.reproduce.peak import peak_memory
from rcv.reproduce.sample import sampled, scored
from rcv.training import finetune
from rcv.training.adapter import library_versions
from rcv.training.lock import folder_lock
from rcv.training.log import Record, read_log
from rcv.training.trainer import DivergedError
from rcv.video import replacing


def compute_cell(cell, clip):
    """Compute a Cell and write its result, unless it is there; returns the result.

    The same cell gives the same numbers, but for its times. A training that diverges is a result too: the cell has no
    videos and says why.

    Parameters
    ----------
    cell : Cell
    clip : ImageTextModel
        Of `rcv.evaluation.clip.load_clip`.

    Raises
    ------
    FolderBusyError
        Another process is at this cell or its training.
    """
    with folder_lock(cell.folder):
        if (result := cell.result()) is not None:
            return result
        training, videos, rows = {}, [], []
        started = time.perf_counter()
        try:
            settings = cell.training
            if settings is not None:
                training = trained(settings)
            began = time.perf_counter()
            videos = sampled(cell)
            ended = time.perf_counter()
            for (group, scene), frames in zip(cell.prompts, videos, strict=True):
                rows.append({"caption": scene.caption, "group": group, **scored(frames, scene.caption, clip)})
            sampling = {"sample_seconds": ended - began, "score_seconds": time.perf_counter() - ended}
        except DivergedError as error:
            training, sampling = {"error": str(error)}, {}
        if videos:
            with replacing(cell.folder / "videos.npz") as part:
                np.savez_compressed(part, videos=np.stack(videos))
        write_result(
            cell.folder,
            {
                "arm": cell.arm.name,
                "theme": cell.theme,
                "seed": cell.seed,
                **training,
                **sampling,
                "wall_seconds": time.perf_counter() - started,
                "videos": rows,
                "device": _device(),
                "threads": torch.get_num_threads(),
                "versions": library_versions(),
            },
        )
        return cell.result()


def trained(settings):
    """Train by a FinetuneConfig unless it is done; returns what training.json beside its output holds.

    That is {"train_seconds", "step_seconds", "peak_bytes", "final_loss"}; seconds are of the optimizer steps alone. A
    run that was killed goes on from its checkpoint.

    Raises
    ------
    FolderBusyError
        Another process is at it.
    """
    folder = settings.output.parent
    record = folder / "training.json"
    with folder_lock(folder):
        if record.is_file():
            return json.loads(record.read_text(encoding="utf-8"))
        with peak_memory() as peak:
            result = finetune(settings, show_progress=False)
        steps = [row.seconds for row in read_log(settings.output / "losses.csv", Record)]
        measured = {
            "train_seconds": float(sum(steps)),
            "step_seconds": result.seconds_per_step,
            "peak_bytes": peak.bytes,
            "final_loss": float(np.mean(result.losses[-20:])),
        }
        with replacing(record) as part:
            part.write_text(json.dumps(measured), encoding="utf-8")
        for name in ("checkpoints", "clips"):  # the adapter stays
            shutil.rmtree(settings.output / name, ignore_errors=True)
        return measured


def _device():
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    names = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()


def _lines(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().splitlines()
    except OSError:
        return []
