"""Training and denoising steps of several programs, checked against each other and then timed in turn."""

import dataclasses
import time
from dataclasses import dataclass
from statistics import median, quantiles

import torch

from rcv.planning.live_bytes import LiveBytes

from .programs import PROGRAMS, Program, reference_operations

# Largest error over largest value of the output, and the norm of the gradients' error over the gradients' norm. Not
# each gradient against its own size: that of a bias before a norm nearly cancels over all tokens, down to rounding.
LIMITS = {"output": 5e-6, "gradients": 1e-5}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class GateError(AssertionError):
    """Two programs that must agree do not."""


@dataclass(frozen=True)
class Spread:
    """Seconds of one kind of step over the rounds.

    Attributes
    ----------
    median, lower, upper : float
        With the quartiles.
    samples : tuple of float
        In the order of the rounds.
    """

    median: float
    lower: float
    upper: float
    samples: tuple

    @classmethod
    def of(cls, samples):
        """Return the Spread of one sample or more."""
        lower, _, upper = (
            quantiles(samples, n=4, method="inclusive") if len(samples) > 1 else [samples[0]] * 3
        )
        return cls(median(samples), lower, upper, tuple(samples))


@dataclass(frozen=True)
class StepResult:
    """What was measured of one program.

    Attributes
    ----------
    preset, way, label : str
    train, denoise : Spread
        A training step; a guided denoising step (None where it was not asked for).
    peak_live_bytes : int
        Of a training step, weights and optimizer state included; see `LiveBytes`.
    resident_bytes : int
        The part of it that is there between steps.
    cuda_peak_bytes : int or None
        What CUDA's allocator had handed out at most.
    compared_with : str
    output_error, gradient_error : float
        Against that program, relative.
    """

    preset: str
    way: str
    label: str
    train: Spread
    denoise: Spread | None
    peak_live_bytes: int
    resident_bytes: int
    cuda_peak_bytes: int | None
    compared_with: str
    output_error: float
    gradient_error: float


def measure_step(setting, programs=PROGRAMS, repeats=5, clock="wall", denoise=True):
    """Measure training and denoising steps of several programs in turn.

    Parameters
    ----------
    setting : Setting
    programs : sequence of (preset, way)
    repeats : int
        Timed rounds.
    clock : str
        "wall", or "cpu": the processor time of this process, for CPUs that others use at the same time.
    denoise : bool
        Whether to time denoising steps too.

    Returns
    -------
    list of StepResult

    Raises
    ------
    GateError
        If a preset and its published program, or the reference operations where it has none, do not agree.
    """
    built, checks = [], []
    for preset in dict.fromkeys(preset for preset, _ in programs):
        ways = [way for name, way in programs if name == preset]
        members, errors = _checked_programs(preset, ways, setting)
        built += members
        checks += errors
    seconds = {id(program): {"train": [], "denoise": []} for program in built}
    for _ in range(repeats):
        for program in built:
            seconds[id(program)]["train"].append(_seconds(program.train_step, setting.device, clock))
            if denoise:
                seconds[id(program)]["denoise"].append(_seconds(program.denoise_step, setting.device, clock))
    return [
        StepResult(
            program.preset,
            program.way,
            program.label,
            train=Spread.of(seconds[id(program)]["train"]),
            denoise=Spread.of(seconds[id(program)]["denoise"]) if denoise else None,
            **check,
        )
        for program, check in zip(built, checks, strict=True)
    ]


def _checked_programs(preset, ways, setting):
    """Build the programs of one preset and run each once; return them, and what that run showed of each."""
    unet = setting.unet(preset)
    base = Program(preset, "preset", unet, setting)
    shown, expected = _first_step(base, setting)
    if ways == ["preset"]:
        with reference_operations():
            other, compared_with = _output_and_gradients(base), "the reference operations"
        base.optimizer.zero_grad()
        return [base], [{**shown, **_errors(base, expected, other, compared_with)}]
    programs, checks = [], []
    for way in ways:
        if way == "preset":
            continue
        program = Program(preset, way, unet, setting)
        of_way, given = _first_step(program, setting)
        programs.append(program)
        checks.append({**of_way, **_errors(program, given, expected, base.label)})
    if "preset" in ways:
        worst = {k: max(check[k] for check in checks) for k in ("output_error", "gradient_error")}
        programs.append(base)
        checks.append({**shown, "compared_with": "its published programs", **worst})
    return programs, checks


def _first_step(program, setting):
    """Take a training step; return its memory, and the output and gradients."""
    program.make_optimizer_state()
    cuda = torch.device(setting.device).type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(setting.device)
    with LiveBytes(alive=program.tensors()) as counted:
        resident = counted.current
        result = _output_and_gradients(program)
        program.update()
    peak = torch.cuda.max_memory_allocated(setting.device) if cuda else None
    return {"peak_live_bytes": counted.peak, "resident_bytes": resident, "cuda_peak_bytes": peak}, result


def _output_and_gradients(program):
    output = program.backward()
    # a memory that one frame alone never reads has no gradient
    return output, {name: p.grad for name, p in program.trained.items() if p.grad is not None}


def _errors(program, given, expected, compared_with):
    output, gradients = given
    wanted_output, wanted = expected
    output_error = ((output - wanted_output).abs().max() / wanted_output.abs().max()).item()
    same = gradients.keys() & wanted.keys()
    difference = sum((gradients[name] - wanted[name]).double().square().sum() for name in same)
    norm = sum(value.double().square().sum() for value in wanted.values())
    gradient_error = (difference / norm).sqrt().item()
    # written so that NaN fails
    agree = output_error <= LIMITS["output"] and gradient_error <= LIMITS["gradients"]
    if not agree or gradients.keys() != wanted.keys():
        raise GateError(
            f"{program.label} and {compared_with} do not agree: output {output_error:.1e} (limit "
            f"{LIMITS['output']:.0e}), gradients {gradient_error:.1e} (limit {LIMITS['gradients']:.0e})"
        )
    return {
        "compared_with": compared_with,
        "output_error": output_error,
        "gradient_error": gradient_error,
    }


def _seconds(step, device, clock):
    _synchronize(device)
    start = CLOCKS[clock]()
    step()
    _synchronize(device)
    return CLOCKS[clock]() - start


def _synchronize(device):
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def measure_growth(setting, programs, frames=(), latents=(), repeats=3, clock="wall"):
    """Measure training steps over frame counts, at half the latents' side, and over latents, at half the frames.

    Half, so that the published programs' probabilities fit at the upper end.

    Returns
    -------
    list of (Setting, list of StepResult)
    """
    smaller = dataclasses.replace(setting, height=setting.height // 2, width=setting.width // 2)
    settings = [dataclasses.replace(smaller, frames=count) for count in frames]
    fewer = dataclasses.replace(setting, frames=max(setting.frames // 2, 1))
    settings += [dataclasses.replace(fewer, height=side, width=side) for side in latents]
    return [(s, measure_step(s, programs, repeats, clock, denoise=False)) for s in settings]


def paired_ratio(slower, faster):
    """Return how many times faster: the Spread of the rounds' ratios."""
    return Spread.of([a / b for a, b in zip(slower.samples, faster.samples, strict=True)])
