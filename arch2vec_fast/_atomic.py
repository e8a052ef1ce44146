# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or absent: written beside, flushed to disk, then renamed into place.

Needs no torch, so that `spaces` writes its files in the same way.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file that replaces `path` only if the block ends without an error."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with draft.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        if isinstance(error, OSError):  # without the draft's name, which says nothing to a user
            reason = error.strerror or error
            raise OSError(
                f"{path}: could not be written ({reason}); nothing was changed"
            ) from error
        raise


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """Write `value` as JSON; NaN and infinity, which JSON does not have, are a ValueError."""
    try:
        text = json.dumps(value, indent=indent, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path}: not written, a number is not finite ({error})") from None
    with atomic_file(path) as file:
        file.write((text + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON; a file that is not JSON is a ValueError that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a JSON file ({error}); is it truncated?") from None
