# SPDX-License-Identifier: Apache-2.0
"""What the GPU assembler says about every kernel: registers, shared memory, spills.

    python _build/ptxas.py run nvcc ...               compile, keep the report beside the object
    python _build/ptxas.py report build/cmake-* --out resources.md

CMake compiles through `run`: it forwards nvcc's messages except `ptxas info`, which goes to
`<object>.ptxas`. `report` reads these files, writes a table (Markdown, or JSON by the suffix) and
fails on a kernel that spills registers or takes more static shared memory than a block has.
Standard library only: it runs inside the build.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

STATIC_SHARED_BYTES = 48 * 1024  # of a block, on every architecture
# Bytes a thread that are known, by (file, architecture): the widest training kernel keeps two words
# outside its 255 registers on A100.
ALLOWED_SPILLS = {("gin_train_wide.cu", "sm_80"): 24}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One kernel on one architecture; bytes a thread for stack and spills, a block for shared."""

    file: str
    name: str
    architecture: str
    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_bytes: int

    def complaint(self) -> str | None:
        """What is wrong with it, if anything."""
        if self.spill_bytes > ALLOWED_SPILLS.get((self.file, self.architecture), 0):
            return f"spills {self.spill_bytes} bytes of registers"
        if self.shared_bytes > STATIC_SHARED_BYTES:
            return f"takes {self.shared_bytes} bytes of static shared memory"
        return None


def run(command: list[str]) -> int:
    """Compiles; the assembler's report goes to a file, everything else to the terminal."""
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    sys.stdout.write(result.stdout)
    lines = result.stderr.splitlines(keepends=True)
    report = [line for line in lines if is_report(line)]
    sys.stderr.writelines(line for line in lines if not is_report(line))
    if report and "-o" in command[:-1]:
        target = Path(command[command.index("-o") + 1])
        target.with_name(f"{target.name}.ptxas").write_text("".join(report))
    return result.returncode


def is_report(line: str) -> bool:
    """Whether a line of nvcc's belongs to the report of `ptxas -v`."""
    return line.startswith("ptxas info") or re.match(r"\s+\d+ bytes stack frame", line) is not None


def parse(text: str, file: str) -> Iterator[Kernel]:
    """The kernels of one object file's report."""
    blocks = re.split(r"Compiling entry function ", text)[1:]
    for block in blocks:
        head = re.match(r"'(\S+)' for '(\w+)'", block)
        frame = re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", block
        )
        used = re.search(r"Used (\d+) registers(.*)", block)
        if head is None or frame is None or used is None:
            raise SystemExit(f"ptxas: {file}: report not understood: {block[:200]!r}")
        shared = re.search(r"(\d+) bytes smem", used[2])
        yield Kernel(
            file=file,
            name=head[1],
            architecture=head[2],
            registers=int(used[1]),
            shared_bytes=int(shared[1]) if shared else 0,
            stack_bytes=int(frame[1]),
            spill_bytes=int(frame[2]) + int(frame[3]),
        )


def readable(names: list[str]) -> dict[str, str]:
    """Demangled names without arguments and anonymous namespaces, where c++filt exists."""
    filt = shutil.which("c++filt")
    if filt is None or not names:
        return {name: name for name in names}
    output = subprocess.run(
        [filt], input="\n".join(names), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return dict(zip(names, map(_short, output)))


def _short(name: str) -> str:
    name = name.replace("(anonymous namespace)::", "").removeprefix("void ")
    depth = 0
    for position, letter in enumerate(name):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0:
            return name[:position]
    return name


def collect(folder: Path) -> list[Kernel]:
    """All kernels built below a CMake folder, by file, name and architecture."""
    found = [
        kernel
        for path in sorted(folder.rglob("*.ptxas"))
        for kernel in parse(path.read_text(), path.name.removesuffix(".o.ptxas"))
    ]
    names = readable(sorted({kernel.name for kernel in found}))
    named = [Kernel(**{**asdict(kernel), "name": names[kernel.name]}) for kernel in found]
    return sorted(named, key=lambda k: (k.file, k.name, k.architecture))


def table(kernels: list[Kernel]) -> str:
    """The report as Markdown."""
    lines = [
        "| kernel | architecture | registers | static shared, bytes | stack | spills |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{k.name}` ({k.file}) | {k.architecture} | {k.registers} | {k.shared_bytes} "
        f"| {k.stack_bytes} | {k.spill_bytes} |"
        for k in kernels
    ]
    return "\n".join(lines) + "\n"


def report(folder: Path, out: Path | None) -> int:
    """Prints and writes the table; returns 1 where a kernel is over a limit."""
    kernels = collect(folder)
    if not kernels:
        raise SystemExit(f"ptxas: no report below {folder}; build _C_cuda there first")
    sys.stdout.write(table(kernels))
    if out is not None:
        rows = json.dumps([asdict(kernel) for kernel in kernels], indent=1) + "\n"
        out.write_text(rows if out.suffix == ".json" else table(kernels))
    complaints = [
        f"ptxas: {k.name} on {k.architecture} {k.complaint()}" for k in kernels if k.complaint()
    ]
    sys.stdout.writelines(f"{line}\n" for line in complaints)
    return 1 if complaints else 0


def main() -> int:
    if sys.argv[1:2] == ["run"]:
        return run(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    reporting = commands.add_parser("report", help="table of kernels; fails on spills")
    reporting.add_argument("folder", type=Path)
    reporting.add_argument("--out", type=Path, help="file to write: .md or .json")
    arguments = parser.parse_args()
    return report(arguments.folder, arguments.out)


if __name__ == "__main__":
    sys.exit(main())
