"""A digest of the program behind a result: what a module and everything of rcv that it imports compute."""

import ast
import hashlib
import importlib.util
from functools import cache
from pathlib import Path

PACKAGE = "rcv"


@cache
def code_digest(*modules):
    """Return a digest of modules and of all modules of rcv that they import, wherever in the file.

    Comments, docstrings and layout do not count. What is not Python (CUDA sources) is left out: what operations return
    doesn't depend on the backend beyond rounding.

    Parameters
    ----------
    *modules : str
        Such as "rcv.training.run".
    """
    found, open_ = {}, list(modules)
    while open_:
        name = open_.pop()
        if name in found:
            continue
        file = _file(name)
        if file is None:  # a name that a module has, not a module
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        open_ += _imported(tree, package)
        if file.name == "__init__.py" and any(
            getattr(node, "name", None) == "__getattr__" for node in tree.body
        ):
            open_ += [
                f"{name}.{other.stem}" for other in file.parent.glob("[!_]*.py")
            ]  # imported on first use
        found[name] = hashlib.sha256(ast.dump(_without_docstrings(tree)).encode()).hexdigest()
    text = "\n".join(f"{name} {digest}" for name, digest in sorted(found.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def _file(name):
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None


def _imported(tree, package):
    """Names under rcv that a module imports: modules, and what may be modules in `from package import name`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(filter(None, (above, node.module)))
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == PACKAGE and name.count(".") > 0)


def _without_docstrings(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
    return tree
