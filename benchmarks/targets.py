"""What the project promises of its operations, as data: the suite names in one line each what falls short."""

from dataclasses import dataclass

GIB = 1 << 30
# A V100 of 16 GB has 15.8 GiB, of which the CUDA context takes about 0.5.
V100_GIB = 15.3


@dataclass(frozen=True)
class Target:
    """One promise.

    Attributes
    ----------
    name : str
    operation : str
        Of the rows it is about; empty for all operations that are timed against rivals.
    least_speedup : float or None
        Least median of the fastest rival over that of rcv's fastest backend.
    most_bytes : int or None
        Largest peak of device memory.
    frames : int or None
        Of the rows it is about; None for all.
    """

    name: str
    operation: str = ""
    least_speedup: float | None = None
    most_bytes: int | None = None
    frames: int | None = None


TARGETS = (
    # Automatic choice takes a rival where one is measured faster, so rcv is never slower. 3 % is left to noise.
    Target("as fast as the fastest rival", least_speedup=0.97),
    Target(
        "32 frames of 320x512 train on a 16 GB V100",
        operation="training_step",
        most_bytes=int(V100_GIB * GIB),
        frames=32,
    ),
)
