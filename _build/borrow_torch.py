# SPDX-License-Identifier: Apache-2.0
"""Lets a new virtual environment see the torch of the interpreter that made it.

`python borrow_torch.py VENV`, run by the Makefile, exits with 1 where there is no torch. Why not
`--system-site-packages`: made from inside another virtual environment, that shows the base
interpreter's packages and not the ones the user sees. A .pth file serves both.
"""

import subprocess
import sys
from pathlib import Path

import toolchain


def main() -> None:
    """Writes one line into the environment's site-packages."""
    try:
        torch = toolchain.find_torch()
    except toolchain.BuildError:
        sys.exit(1)
    query = "import sysconfig; print(sysconfig.get_path('platlib'))"
    python = Path(sys.argv[1], "bin", "python")
    platlib = subprocess.run(
        [python, "-c", query], check=True, capture_output=True, text=True
    ).stdout
    Path(platlib.strip(), "borrowed_torch.pth").write_text(f"{torch.parent}\n")
    print(f"torch: borrowed from {torch.parent}")


if __name__ == "__main__":
    main()
