"""One compilation of a kernel: as Triton would specialise it for a recorded launch, its key, its results."""

import ast
import functools
import hashlib
import importlib
import io
import re
import tokenize
from collections import Counter
from dataclasses import dataclass
from types import ModuleType

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import JITCallable, create_function_from_signature

from rcv.kernels import cubin

WARP = 32
MATRIX_INSTRUCTIONS = {"mma.sync": "mma.sync", "wgmma.mma_async": "wgmma", "tcgen05.mma": "tcgen05"}
_MATRIX = re.compile(r"\b(" + "|".join(map(re.escape, MATRIX_INSTRUCTIONS)) + r")\b")
_DOT = re.compile(r"= tt\.dot .*")
_FLOAT32_OPERANDS = re.compile(r": tensor<[0-9x]+xf32[,>]")


@dataclass(frozen=True)
class Compilation:
    """A kernel with everything that decides its machine code, but Triton's version.

    Attributes
    ----------
    kernel : str
        "module:function".
    signature : tuple of (str, str)
        Parameters and their types in Triton's spelling; "constexpr" where the value is compiled in.
    constants : tuple of (tuple of int, object)
        Values compiled in, by position: of `tl.constexpr` parameters, integers that are 1, None.
    aligned : tuple of tuple of int
        Positions of pointers and integers that are known to be divisible by 16.
    options : tuple of (str, object)
        `num_warps`, `num_stages`, `enable_fp_fusion`, and `maxnreg` where it is given.
    capability : tuple of two int
    """

    kernel: str
    signature: tuple
    constants: tuple
    aligned: tuple
    options: tuple
    capability: tuple

    @staticmethod
    def of(launch, capability):
        """Return what Triton would compile for a launch on a device of this capability.

        Triton's own binder decides, so that this is its specialisation and not ours; a meta tensor's address is 0, as
        aligned as all that PyTorch allocates.

        Parameters
        ----------
        launch : rcv.kernels.launch.Launch
        capability : tuple of two int
        """
        kernel = launch.kernel
        binder = _binder(kernel, _target(capability))
        _, specialization, _ = binder(**launch.arguments, **launch.constants, **launch.options)
        compiled_in = [kind == "constexpr" for kind, _ in specialization]
        return Compilation(
            kernel=f"{kernel.__module__}:{kernel.__name__}",
            signature=tuple(zip(kernel.arg_names, (kind for kind, _ in specialization), strict=True)),
            constants=tuple(((i,), value) for i, (_, value) in enumerate(specialization) if compiled_in[i]),
            aligned=tuple(
                (i,) for i, (_, value) in enumerate(specialization) if value == "D" and not compiled_in[i]
            ),
            options=tuple(sorted(launch.options.items())),
            capability=tuple(capability),
        )

    @property
    def name(self):
        """The kernel's own name."""
        return self.kernel.split(":")[1]

    @property
    def tile(self):
        """The launch's constants and options as words: what a person chose."""
        names = [name for name, _ in self.signature]
        declared = {p.name for p in _jit_function(self.kernel).params if p.is_constexpr}
        chosen = [(names[path[0]], value) for path, value in self.constants if names[path[0]] in declared]
        options = [(name, value) for name, value in self.options if name != "enable_fp_fusion"]
        return " ".join(f"{name}={value}" for name, value in (*chosen, *options))

    def key(self, version=triton.__version__):
        """Return a hash of everything that decides the machine code, with this version of Triton."""
        code = code_of(_jit_function(self.kernel))
        parts = (code, self.signature, self.constants, self.aligned, self.options, self.capability, version)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def compiled(self):
        """Compile, or take what Triton's cache holds; return Triton's object with `asm` and `metadata`."""
        attributes = {position: [["tt.divisibility", 16]] for position in self.aligned}
        function = _jit_function(self.kernel)
        source = ASTSource(function, dict(self.signature), dict(self.constants), attributes)
        return triton.compile(source, target=_target(self.capability), options=dict(self.options))

    def results(self):
        """Compile, and return the facts as a dict.

        Returns
        -------
        dict
            `mma`: matrix instructions in the PTX, as written there, by kind ("mma.sync", "wgmma", "tcgen05");
            `dots`: products in the kernel whose operands are 16-bit or TF32; `scalar_dots`: those that became scalar
            multiplications, where no exact float32 product is in the kernel; `registers` a thread; `shared_bytes` a
            block; `tensor_memory` columns a block; `spilled_bytes` of stack a thread.
        """
        compiled = self.compiled()
        resources = cubin.resources(compiled.asm["cubin"]).values()
        found = Counter(MATRIX_INSTRUCTIONS[name] for name in _MATRIX.findall(compiled.asm["ptx"]))
        exact = [_is_exact(dot) for dot in _DOT.findall(compiled.asm["ttir"])]
        scalar = [dot for dot in _DOT.findall(compiled.asm["ttgir"]) if "#blocked" in dot]
        return {
            "mma": dict(sorted(found.items())),
            "dots": exact.count(False),
            "scalar_dots": 0 if any(exact) else len(scalar),
            "registers": max(r.registers for r in resources),
            "shared_bytes": compiled.metadata.shared,
            "tensor_memory": compiled.metadata.tmem_size or 0,
            "spilled_bytes": sum(r.stack_bytes for r in resources),
        }


@functools.cache
def code_of(function):
    """Return the code of a jitted function, of those it calls and the constants it reads, without comments.

    Line numbers are no part of it, as they are of Triton's own key: moving a kernel recompiles nothing.
    """
    parts, waiting, seen = [], [function], set()
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        parts.append(_without_comments(current.src))
        scope = current.get_capture_scope()
        for node in ast.walk(ast.parse(current.src)):
            value = _resolve(node, scope)
            if isinstance(value, JITCallable):
                if not value.__module__.startswith("triton."):
                    waiting.append(value)
            elif isinstance(value, triton.language.constexpr):  # all that a kernel may read
                parts.append(f"{ast.unparse(node)} = {value.value!r}")
    return "\n".join([parts[0], *sorted(parts[1:])])


@functools.cache
def _target(capability):
    return GPUTarget("cuda", 10 * capability[0] + capability[1], WARP)


@functools.cache
def _binder(kernel, target):
    """Triton's function from arguments to what it specialises on, per parameter: (type, value or "D" if aligned)."""
    return create_function_from_signature(kernel.signature, kernel.params, make_backend(target))


@functools.cache
def _jit_function(path):
    module, name = path.split(":")
    return getattr(importlib.import_module(module), name)


def _without_comments(source):
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    left_out = (tokenize.COMMENT, tokenize.NL)
    return " ".join(f"{tokenize.tok_name[t.type]}:{t.string}" for t in tokens if t.type not in left_out)


def _resolve(node, scope):
    """Value of a name or of a module's attribute in a function's scope, or None."""
    if isinstance(node, ast.Name):
        return scope.get(node.id)
    if isinstance(node, ast.Attribute):
        module = _resolve(node.value, scope)
        return getattr(module, node.attr, None) if isinstance(module, ModuleType) else None
    return None


def _is_exact(dot):
    """Whether a product in Triton's IR is of float32 operands as they are: "ieee", the precision it leaves unsaid."""
    return _FLOAT32_OPERANDS.search(dot) is not None and "inputPrecision" not in dot
