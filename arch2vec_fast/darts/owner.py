# SPDX-License-Identifier: Apache-2.0
"""Which process holds a claim, and whether it still runs."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

__all__ = ["Owner"]


class Owner(NamedTuple):
    """A process, told from all that come after it and from those of other machines."""

    host: str
    """Name of the machine and a digest of its boot and process namespace: containers share names
    of machines, and machines names with each other, but not what a process id means."""
    pid: int
    started: str
    """When, in the system's words: process ids are used again."""

    @classmethod
    def here(cls) -> Owner:
        """This process."""
        return cls(_host(), os.getpid(), _started(os.getpid()) or "")

    def is_alive(self) -> bool | None:
        """Whether the process runs; None where that cannot be seen from here."""
        if self.host != _host():
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # another user's, which may be hidden
            return None
        return _started(self.pid) == self.started


def _host() -> str:
    meaning = ""
    with suppress(OSError):  # macOS and some sandboxes lack them
        meaning += Path("/proc/sys/kernel/random/boot_id").read_text()
    with suppress(OSError):
        meaning += str(Path("/proc/self/ns/pid").readlink())
    return f"{socket.gethostname()}/{sha256(meaning.encode()).hexdigest()[:8]}"


def _started(pid: int) -> str | None:
    """When a process started; None if there is none, or only its exit status."""
    if not Path("/proc/self").exists():  # macOS
        command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
        shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
        return None if not shown or shown[0].startswith("Z") else " ".join(shown[1:])
    try:
        line = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = line.rpartition(")")[2].split()  # the name before may hold anything
    return None if fields[0] in "ZX" else fields[19]
