"""What the project promises of its operations, as data: the suite names in one line each what falls short."""

from dataclasses import dataclass

GIB = 1 << 30
# A V100 of 16 GB has 15.8 GiB, of which the CUDA context takes about 0.5.
V100_GIB = 15.3
HALF = ("float16", "bfloat16")


@dataclass(frozen=True)
class Target:
    """One promise, and the rows that it is about.

    Attributes
    ----------
    name : str
    operation : str
        Empty for all operations that are timed against rivals.
    direction : str
        "forward", "backward", "step"; empty for forward and backward.
    dtypes : tuple of str, or None
        None for all.
    tokens : tuple of two int, or None
        Least and most tokens of a frame.
    channels, head_dim, frames : int or None
        None for all.
    cuda : bool
        Whether it is about CUDA devices alone.
    least_speedup : float or None
        Least median of the fastest rival over that of rcv's fastest backend.
    rivals : tuple of str
        Beginnings of the rivals' names; all if empty.
    least_share : float or None
        Least share of the bound.
    most_bytes : int or None
        Largest peak of device memory.
    """

    name: str
    operation: str = ""
    direction: str = ""
    dtypes: tuple | None = None
    tokens: tuple | None = None
    channels: int | None = None
    head_dim: int | None = None
    frames: int | None = None
    cuda: bool = False
    least_speedup: float | None = None
    rivals: tuple = ()
    least_share: float | None = None
    most_bytes: int | None = None

    def is_about(self, row, on_cuda):
        """Return whether a Row, measured on a CUDA device or not, falls under this promise."""
        directions = (self.direction,) if self.direction else ("forward", "backward")
        fixed = {
            "frames": self.frames,
            "head_dim": self.head_dim,
            "operation": self.operation or None,
        }
        return (
            (on_cuda or not self.cuda)
            and row.direction in directions
            and (self.dtypes is None or row.dtype in self.dtypes)
            and (self.tokens is None or self.tokens[0] <= row.tokens <= self.tokens[1])
            and self.channels in (None, row.heads * row.head_dim)
            and all(value in (None, getattr(row, name)) for name, value in fixed.items())
        )

    def is_against(self, row):
        """Return whether a rival's Row counts in the comparison."""
        return not self.rivals or row.candidate.startswith(self.rivals)

    @property
    def figure(self):
        """What is asked, in words."""
        if self.least_speedup is not None:
            rivals = " or ".join(self.rivals) if self.rivals else "the fastest rival"
            return f"at least {self.least_speedup:g}x {rivals}"
        if self.least_share is not None:
            return f"at least {self.least_share:g} of the bound"
        return f"at most {self.most_bytes / GIB:.1f} GiB"


TARGETS = (
    # Automatic choice takes a rival where one is measured faster, so rcv is never slower. 3 % is left to noise.
    Target("as fast as the fastest rival", least_speedup=0.97),
    Target(
        "first frame and memory at the large sizes, forward",
        operation="frame_attention",
        direction="forward",
        dtypes=HALF,
        tokens=(2560, 4096),
        head_dim=40,
        cuda=True,
        least_speedup=1.15,
    ),
    Target(
        "first frame and memory at the small sizes, forward",
        operation="frame_attention",
        direction="forward",
        dtypes=HALF,
        tokens=(1, 1024),
        cuda=True,
        least_speedup=1.3,
    ),
    Target(
        "first frame and memory, backward",
        operation="frame_attention",
        direction="backward",
        dtypes=HALF,
        cuda=True,
        least_speedup=1.2,
    ),
    Target(
        "attention near its bound at the large sizes",
        operation="frame_attention",
        dtypes=HALF,
        tokens=(2560, 4096),
        cuda=True,
        least_share=0.6,
    ),
    Target(
        "the scan against its loop in a CUDA graph",
        operation="recurrent_scan",
        dtypes=HALF,
        tokens=(4096, 8192),
        channels=320,
        cuda=True,
        least_speedup=1.3,
        rivals=("cuda-graph",),
    ),
    Target(
        "the scan against its eager loop",
        operation="recurrent_scan",
        dtypes=HALF,
        tokens=(4096, 8192),
        channels=320,
        cuda=True,
        least_speedup=3.0,
        rivals=("reference",),
    ),
    *(
        Target(
            f"{operation} at memory bandwidth",
            operation=operation,
            dtypes=HALF,
            tokens=(1024, 4096),
            cuda=True,
            least_share=0.8,
        )
        for operation in ("gated_scan", "mingru_scan")
    ),
    Target(
        "a token's frames against SDPA with its transposes",
        operation="temporal_attention",
        dtypes=HALF,
        cuda=True,
        least_speedup=3.0,
        rivals=("sdpa",),
    ),
    Target(
        "a training step against the published way with SDPA",
        operation="training_step",
        direction="step",
        cuda=True,
        least_speedup=2.0,
        rivals=("published",),
    ),
    Target(
        "32 frames of 320x512 train on a 16 GB V100",
        operation="training_step",
        direction="step",
        cuda=True,
        most_bytes=int(V100_GIB * GIB),
        frames=32,
    ),
)


def as_markdown():
    """Return the targets as a page: docs/targets.md."""
    lines = [
        "# Targets",
        "",
        "What the kernels are held to. `python benchmarks/gpu_suite.py --out DIR` says in one line each what falls "
        "short on the device at hand; [computed bounds](computed.md) say what an H200 could do at most. Written by "
        "`python -m benchmarks.publish` from `benchmarks/targets.py`.",
        "",
        "| target | operation | direction | dtypes | tokens | where | asked |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for target in TARGETS:
        sizes = {"C": target.channels, "D": target.head_dim, "F": target.frames}
        tokens = [f"{target.tokens[0]} to {target.tokens[1]}" if target.tokens else "all"]
        tokens += [f"{name} = {value}" for name, value in sizes.items() if value is not None]
        cells = [
            target.name,
            target.operation or "all",
            target.direction or "both",
            ", ".join(target.dtypes) if target.dtypes else "all",
            ", ".join(tokens),
            "CUDA" if target.cuda else "everywhere",
            target.figure,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
