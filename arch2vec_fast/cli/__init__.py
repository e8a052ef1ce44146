# SPDX-License-Identifier: Apache-2.0
"""The command `arch2vec-fast`.

Commands import what they need when they run, so that `--help` answers without loading torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

__all__ = ["main", "run"]

_USER_ERRORS = (ValueError, TypeError, OSError, FloatingPointError, ImportError, MemoryError)


def main() -> None:
    """Entry point of the console script: `run` and exit with its code."""
    sys.exit(run())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; arguments default to those of the process.

    0 success, 1 the command itself reports trouble, 2 bad input (one line on standard error, a
    traceback too with ARCH2VEC_DEBUG=1), 130 interrupted.
    """
    from arch2vec_fast.cli.app import app

    try:
        code = app(
            args=None if arguments is None else list(arguments),
            prog_name="arch2vec-fast",
            standalone_mode=False,
        )
    except KeyboardInterrupt:
        print("arch2vec-fast: interrupted; nothing more was written", file=sys.stderr)
        return 130
    except Exception as error:
        message = _message(error)
        if message is None or os.environ.get("ARCH2VEC_DEBUG") == "1":
            raise
        print(f"{_speaker()}: {message}", file=sys.stderr)
        return 2
    return code if isinstance(code, int) else 0


def _speaker() -> str:
    """The command's name, and among torchrun's processes which of them speaks."""
    rank = os.environ.get("RANK", "0")
    return "arch2vec-fast" if rank == "0" else f"arch2vec-fast (process {rank})"


def _message(error: Exception) -> str | None:
    """One line for an error of the user's making, None for one of ours."""
    if hasattr(error, "format_message"):  # a usage error, whichever click it comes from
        return f"{_one_line(error.format_message()).rstrip('.')}; try --help"
    if type(error).__name__ == "Abort":
        return "aborted"
    if isinstance(error, _USER_ERRORS):
        return _one_line(str(error)) or type(error).__name__
    return None


def _one_line(text: str) -> str:
    return " ".join(text.split())
