# SPDX-License-Identifier: Apache-2.0
"""A reader of pickled data that cannot execute anything.

The benchmark files of NAS-Bench-201 are pickles, and unpickling runs whatever a file says. This is
the part of the pickle machine that builds plain data. A name in the file stands for a constructor
of the table given, or the file is refused; nothing is ever looked up in a module.

It also reads files larger than memory: of every dict, items that the caller does not want are
dropped as they appear (`keep`), and finished parts can be replaced by something small (`reduce`).
It makes about a million operations a second, so a file of gigabytes takes minutes, once.

Source: Python's `pickletools`; protocols 0x02 to 0x05 as far as plain data needs them.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

__all__ = ["Constructors", "PickleReader", "Readable"]

Constructors = Mapping[tuple[str, str], Callable[..., Any]]

_CHUNK: Final = 1 << 20
_LONGEST: Final = 1 << 26  # bytes of one value
_TEXTS: Final = 1 << 16  # texts of which one copy is shared
_DOUBLE: Final = struct.Struct(">d")
_INT: Final = struct.Struct("<i")
_UINT: Final = struct.Struct("<I")
_ULONG: Final = struct.Struct("<Q")
_USHORT: Final = struct.Struct("<H")
_DROPPED: Final = object()  # stands for text that `keep` refused
_MARK: Final = object()


class Readable(Protocol):
    """What pickles are read from."""

    def read(self, size: int, /) -> bytes: ...


class PickleReader:
    """Reads the pickles of a stream, one after another.

    constructors: what each (module, name) of the file makes, called with the arguments that the
    file gives; its own functions or plain types, for nothing else is safe. keep: of dict items with
    a text key or an int key and a float value, those to keep, by key; default all. reduce:
    (key, value) -> what to keep for it, for every dict item whose value is a dict.

    `position` counts the bytes consumed. Raises ValueError, one line, for a file that ends early,
    names what is not in `constructors`, or uses operations beyond plain data.

    >>> import io
    >>> PickleReader(io.BytesIO(pickle.dumps({"a": [1, 2.5, (None, True)]})), {}).load()
    {'a': [1, 2.5, (None, True)]}
    >>> PickleReader(io.BytesIO(pickle.dumps(print)), {}).load()
    Traceback (most recent call last):
    ValueError: names builtins.print, which is no data; refused, nothing was executed
    """

    def __init__(
        self,
        stream: Readable,
        constructors: Constructors,
        *,
        keep: Callable[[str | int], bool] | None = None,
        reduce: Callable[[Any, dict[Any, Any]], Any] | None = None,
    ) -> None:
        self._stream = stream
        self._constructors = constructors
        self._keep = keep
        self._reduce = reduce
        self._buffer = b""
        self._at = 0
        self._before = 0  # bytes of the stream before the buffer
        self._kept: dict[str, Any] = {}  # text -> itself, or _DROPPED: one copy of each
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._puts = 0

    @property
    def position(self) -> int:
        """Bytes consumed so far."""
        return self._before + self._at

    def load(self) -> Any:
        """The next pickle of the stream."""
        self._stack, self._memo, self._puts = [], {}, 0
        try:
            return self._run()
        except (IndexError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
            reason = f"{type(error).__name__} at byte {self.position:,}"
            raise ValueError(f"is damaged ({reason})") from None

    def forget(self, is_done: Callable[[Any], bool]) -> None:
        """Drop from the machine's memory the values that `is_done` accepts.

        For parts that were reduced, to which nothing later refers. Should the file do so after
        all, the item is missing there, as if `keep` had refused it.
        """
        self._memo = {index: value for index, value in self._memo.items() if not is_done(value)}

    # -- bytes -----------------------------------------------------------------------------

    def _fill(self, size: int) -> None:
        """Make at least `size` bytes available at `_at`."""
        parts = [self._buffer[self._at :]]
        have = len(parts[0])
        while have < size:
            part = self._stream.read(max(_CHUNK, size - have))
            if not part:
                raise ValueError(f"ends early, at byte {self.position + have:,}")
            parts.append(part)
            have += len(part)
        self._before += self._at
        self._buffer, self._at = b"".join(parts), 0

    def _take(self, size: int) -> bytes:
        if size > _LONGEST:
            raise ValueError(f"is damaged (a value of {size:,} bytes)")
        if self._at + size > len(self._buffer):
            self._fill(size)
        start = self._at
        self._at = start + size
        return self._buffer[start : start + size]

    def _line(self) -> str:
        end = self._buffer.find(b"\n", self._at)
        while end < 0:
            if len(self._buffer) - self._at > _CHUNK:
                raise ValueError("is damaged (a name without end)")
            self._fill(len(self._buffer) - self._at + 1)
            end = self._buffer.find(b"\n", self._at)
        return self._take(end + 1 - self._at)[:-1].decode()

    # -- the machine -----------------------------------------------------------------------

    def _run(self) -> Any:
        stack = self._stack
        unpack_double = _DOUBLE.unpack_from
        while True:
            if self._at >= len(self._buffer):
                self._fill(1)
            at = self._at
            code = self._buffer[at]
            if code == 0x47 and at + 9 <= len(self._buffer):  # BINFLOAT, most of a benchmark
                stack.append(unpack_double(self._buffer, at + 1)[0])
                self._at = at + 9
                continue
            self._at = at + 1
            if code == 0x2E:  # STOP
                return stack.pop()
            step = _STEPS.get(code)
            if step is None:
                raise ValueError(
                    f"uses pickle operation {bytes((code,))!r} at byte {self.position - 1:,}; "
                    "refused, it is not plain data"
                )
            step(self, stack)

    def _float(self, stack: list[Any]) -> None:
        stack.append(_DOUBLE.unpack(self._take(8))[0])

    def _proto(self, stack: list[Any]) -> None:
        self._take(1)

    def _frame(self, stack: list[Any]) -> None:
        self._take(8)

    def _small_int(self, stack: list[Any]) -> None:
        stack.append(self._take(1)[0])

    def _medium_int(self, stack: list[Any]) -> None:
        stack.append(_USHORT.unpack(self._take(2))[0])

    def _int(self, stack: list[Any]) -> None:
        stack.append(_INT.unpack(self._take(4))[0])

    def _long(self, stack: list[Any]) -> None:
        stack.append(int.from_bytes(self._take(self._take(1)[0]), "little", signed=True))

    # text and bytes

    def _add_text(self, stack: list[Any], size: int) -> None:
        text = self._take(size).decode("utf-8", "surrogatepass")
        kept = self._kept.get(text)
        if kept is None:
            kept = text if self._keep is None or self._keep(text) else _DROPPED
            if len(self._kept) < _TEXTS:
                self._kept[text] = kept
        stack.append(kept)

    def _short_text(self, stack: list[Any]) -> None:
        self._add_text(stack, self._take(1)[0])

    def _text(self, stack: list[Any]) -> None:
        self._add_text(stack, _UINT.unpack(self._take(4))[0])

    def _long_text(self, stack: list[Any]) -> None:
        self._add_text(stack, _ULONG.unpack(self._take(8))[0])

    def _short_bytes(self, stack: list[Any]) -> None:
        stack.append(self._take(self._take(1)[0]))

    def _bytes(self, stack: list[Any]) -> None:
        stack.append(self._take(_UINT.unpack(self._take(4))[0]))

    # containers

    def _from_mark(self) -> list[Any]:
        """What was pushed since the last mark; both leave the stack."""
        stack = self._stack
        for at in range(len(stack) - 1, -1, -1):
            if stack[at] is _MARK:
                items = stack[at + 1 :]
                del stack[at:]
                return items
        raise ValueError("is damaged (no mark on the stack)")

    def _tuple(self, stack: list[Any]) -> None:
        stack.append(tuple(self._from_mark()))

    def _append(self, stack: list[Any]) -> None:
        value = stack.pop()
        stack[-1].append(value)

    def _appends(self, stack: list[Any]) -> None:
        items = self._from_mark()
        stack[-1].extend(items)

    def _add_items(self, stack: list[Any]) -> None:
        items = self._from_mark()
        stack[-1].update(items)

    def _set_item(self, stack: list[Any]) -> None:
        value, key = stack.pop(), stack.pop()
        self._store(stack[-1], [key, value])

    def _set_items(self, stack: list[Any]) -> None:
        items = self._from_mark()
        self._store(stack[-1], items)

    def _store(self, target: dict[Any, Any], items: list[Any]) -> None:
        if not isinstance(target, dict):
            raise ValueError("is damaged (items for what is no dict)")
        keep, reduce = self._keep, self._reduce
        for key, value in zip(items[::2], items[1::2]):
            if key is _DROPPED:
                continue
            if keep is not None and type(key) is int and type(value) is float and not keep(key):
                continue
            if reduce is not None and type(value) is dict:
                target[key] = reduce(key, value)
            else:
                target[key] = value

    # memory of the machine: dropped text takes none

    def _put(self, index: int, value: Any) -> None:
        if value is not _DROPPED:
            self._memo[index] = value

    def _memoize(self, stack: list[Any]) -> None:
        self._put(self._puts, stack[-1])
        self._puts += 1

    def _binary_put(self, stack: list[Any]) -> None:
        self._put(self._take(1)[0], stack[-1])

    def _long_put(self, stack: list[Any]) -> None:
        self._put(_UINT.unpack(self._take(4))[0], stack[-1])

    def _get(self, stack: list[Any]) -> None:
        stack.append(self._memo.get(self._take(1)[0], _DROPPED))

    def _long_get(self, stack: list[Any]) -> None:
        stack.append(self._memo.get(_UINT.unpack(self._take(4))[0], _DROPPED))

    # objects

    def _constructor(self, module: Any, name: Any) -> Callable[..., Any]:
        found = self._constructors.get((module, name))
        if found is None:
            what = f"{module}.{name}" if type(module) is type(name) is str else "something unnamed"
            raise ValueError(f"names {what:.80}, which is no data; refused, nothing was executed")
        return found

    def _global(self, stack: list[Any]) -> None:
        module = self._line()
        stack.append(self._constructor(module, self._line()))

    def _stack_global(self, stack: list[Any]) -> None:
        name, module = stack.pop(), stack.pop()
        stack.append(self._constructor(module, name))

    def _call(self, stack: list[Any]) -> None:
        arguments, function = stack.pop(), stack.pop()
        if not any(function is allowed for allowed in self._constructors.values()):
            raise ValueError("calls what is no constructor; refused, nothing was executed")
        stack.append(function(*arguments))

    def _build(self, stack: list[Any]) -> None:
        """State of an object: taken over by dicts, which is what constructors make of objects."""
        state = stack.pop()
        if isinstance(stack[-1], dict) and isinstance(state, dict):
            stack[-1].update(state)


_Step = Callable[[PickleReader, list[Any]], None]

_STEPS: Final[dict[int, _Step]] = {
    ord(code): step
    for code, step in (
        (pickle.BINFLOAT, PickleReader._float),
        (pickle.PROTO, PickleReader._proto),
        (pickle.FRAME, PickleReader._frame),
        (pickle.MARK, lambda _, stack: stack.append(_MARK)),
        (pickle.POP, lambda _, stack: stack.pop() and None),
        (pickle.NONE, lambda _, stack: stack.append(None)),
        (pickle.NEWTRUE, lambda _, stack: stack.append(True)),
        (pickle.NEWFALSE, lambda _, stack: stack.append(False)),
        (pickle.BININT, PickleReader._int),
        (pickle.BININT1, PickleReader._small_int),
        (pickle.BININT2, PickleReader._medium_int),
        (pickle.LONG1, PickleReader._long),
        (pickle.BINUNICODE, PickleReader._text),
        (pickle.SHORT_BINUNICODE, PickleReader._short_text),
        (pickle.BINUNICODE8, PickleReader._long_text),
        (pickle.BINBYTES, PickleReader._bytes),
        (pickle.SHORT_BINBYTES, PickleReader._short_bytes),
        (pickle.EMPTY_TUPLE, lambda _, stack: stack.append(())),
        (pickle.EMPTY_LIST, lambda _, stack: stack.append([])),
        (pickle.EMPTY_DICT, lambda _, stack: stack.append({})),
        (pickle.EMPTY_SET, lambda _, stack: stack.append(set())),
        (pickle.TUPLE, PickleReader._tuple),
        (pickle.TUPLE1, lambda _, stack: stack.append((stack.pop(),))),
        (pickle.TUPLE2, lambda _, stack: stack.append((stack.pop(), stack.pop())[::-1])),
        (
            pickle.TUPLE3,
            lambda _, stack: stack.append((stack.pop(), stack.pop(), stack.pop())[::-1]),
        ),
        (pickle.APPEND, PickleReader._append),
        (pickle.APPENDS, PickleReader._appends),
        (pickle.ADDITEMS, PickleReader._add_items),
        (pickle.SETITEM, PickleReader._set_item),
        (pickle.SETITEMS, PickleReader._set_items),
        (pickle.BINPUT, PickleReader._binary_put),
        (pickle.LONG_BINPUT, PickleReader._long_put),
        (pickle.MEMOIZE, PickleReader._memoize),
        (pickle.BINGET, PickleReader._get),
        (pickle.LONG_BINGET, PickleReader._long_get),
        (pickle.GLOBAL, PickleReader._global),
        (pickle.STACK_GLOBAL, PickleReader._stack_global),
        (pickle.REDUCE, PickleReader._call),
        (pickle.NEWOBJ, PickleReader._call),
        (pickle.BUILD, PickleReader._build),
    )
}
