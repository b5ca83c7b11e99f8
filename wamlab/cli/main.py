"""From the words of the command line to one function call, and from any error to one line."""

from __future__ import annotations

import dis
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from wamlab.cli.parser import make_parser, parse
from wamlab.config import nearest

USER_ERROR, BUG, INTERRUPTED = 2, 1, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (2: what was asked cannot be done)."""
    options = parse(make_parser(), arguments)
    set_environment()
    try:
        for source in options.imports:
            import_source(source)
        commands = importlib.import_module("wamlab.cli.commands")
        return getattr(commands, options.run)(options) or 0
    except KeyboardInterrupt:
        print("wam: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if options.traceback or os.environ.get("WAMLAB_TRACEBACK"):
            traceback.print_exc()
        return report(error)


def set_environment() -> None:
    """Defaults of this process that only count before anything is imported; the user's own win."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # Threads that spin for long starve each other as soon as anybody else computes; threads that
    # never spin cost a fifth of a training step.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def report(error: Exception) -> int:
    """One line for the user; what nobody foresaw says how to see where it happened."""
    said = error.args[0] if isinstance(error, KeyError) and error.args else error
    line = " ".join(str(said).split())
    if is_foreseen(error):
        print(f"wam: {line}", file=sys.stderr)
        return USER_ERROR
    kind = type(error).__name__
    print(f"wam: {kind}: {line} (--traceback shows where)", file=sys.stderr)
    return BUG


def is_foreseen(error: Exception) -> bool:
    """Whether an error says what the user asked wrongly, rather than that this library failed.

    Foreseen is what a ``raise`` of this library says, and what the system says of files and
    modules. A failed look-up, or an error of another library, is one that nobody thought of.
    """
    if isinstance(error, (OSError, ImportError)) or type(error).__module__.startswith("wamlab."):
        return True
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    if where is None or not isinstance(error, (KeyError, ValueError, TypeError)):
        return False
    operation = dis.opname[where.tb_frame.f_code.co_code[where.tb_lasti]]
    ours = where.tb_frame.f_globals["__name__"].startswith("wamlab.")
    return ours and operation == "RAISE_VARARGS"


def import_source(source: str) -> None:
    """Import a file or module, so that the models defined there can be named.

    Raises:
        FileNotFoundError: no such file, with the nearest beside it.
        ImportError: no such module.
    """
    path = Path(source)
    if path.suffix != ".py" and not path.exists():
        importlib.import_module(source)
        return
    if not path.is_file():
        beside = [p.name for p in path.parent.glob("*.py")]
        near = nearest(path.name, beside) if beside else " and no other Python file beside it"
        raise FileNotFoundError(f"--import: there is no file {source!r}{near}")
    name = f"imported.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"--import: {source!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
