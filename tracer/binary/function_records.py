"""The runtime's record of one function (_func), which the pclntab has one of for each.

Source: _func in runtime/runtime2.go, funcdata and pcdatastart in runtime/symtab.go, and runtime/funcdata.h.
"""

from __future__ import annotations

import struct

from msgspec import Struct

from gomem.tracer.binary import inline_trees
from gomem.tracer.binary.inline_trees import TreeFormat

_NO_TREE = 0xFFFFFFFF


class RecordFormat(Struct, frozen=True):
    """Offsets of the fields of _func in bytes, None where it has no such field, and the indices of its arrays.

    `size` is that of the fixed part. Behind it come `pcdata` (offsets of tables, 4 bytes each), then `funcdata`:
    offsets from moduledata.gofunc where they have 4 bytes, else addresses.
    """

    size: int
    name: int
    file_table: int  # that of frame sizes is before it, that of lines behind it
    pcdata_count: int
    unit: int | None
    start_line: int | None
    kind: int | None
    funcdata_count: int
    funcdata_size: int
    inline_table: int  # PCDATA_InlTreeIndex
    inline_tree: int  # FUNCDATA_InlTree
    tree: TreeFormat


_UNTIL_1_11 = RecordFormat(40, 8, 24, 32, None, None, None, 36, 8, 1, 2, inline_trees.SINCE_1_9)
_OF_1_12 = RecordFormat(40, 8, 24, 32, None, None, 36, 39, 8, 1, 2, inline_trees.SINCE_1_12)
_SINCE_1_13 = RecordFormat(40, 8, 24, 32, None, None, 36, 39, 8, 2, 4, inline_trees.SINCE_1_12)
_SINCE_1_16 = RecordFormat(44, 8, 24, 32, 36, None, 40, 43, 8, 2, 3, inline_trees.SINCE_1_12)
_SINCE_1_18 = RecordFormat(40, 4, 20, 28, 32, None, 36, 39, 4, 2, 3, inline_trees.SINCE_1_12)
_SINCE_1_20 = RecordFormat(44, 4, 20, 28, 32, 36, 40, 43, 4, 2, 3, inline_trees.SINCE_1_20)

# The records of each version of the pclntab; 1.2 does not say which it has.
FORMATS = {
    "1.2": (_SINCE_1_13, _OF_1_12, _UNTIL_1_11),
    "1.16": (_SINCE_1_16,),
    "1.18": (_SINCE_1_18,),
    "1.20": (_SINCE_1_20,),
}


class FunctionRecord(Struct, frozen=True):
    """What a _func says of names and lines.

    `frame_table`, `file_table`, `line_table` and `inline_table` are offsets in pctab, 0 for none. `inline_tree` is an
    address, or an offset from moduledata.gofunc; None for none.
    """

    name: int  # offset in funcnametab
    frame_table: int
    file_table: int
    line_table: int
    inline_table: int
    inline_tree: int | None
    unit: int  # where its compilation unit begins in cutab
    start_line: int  # 0: not known
    kind: int  # funcID; 0: an ordinary function
    flags: int  # FuncFlag; 0 before Go 1.17


def decode(raw: bytes, form: RecordFormat, address: int) -> FunctionRecord | None:
    """Decode the record at the start of `raw`, which stands at `address`; None where `raw` is shorter than that."""
    if len(raw) < form.size:
        return None
    frames, files, lines = struct.unpack_from("<III", raw, form.file_table - 4)
    return FunctionRecord(
        name=_word(raw, form.name),
        frame_table=frames,
        file_table=files,
        line_table=lines,
        inline_table=_inline_table(raw, form),
        inline_tree=_inline_tree(raw, form, address),
        unit=_word(raw, form.unit),
        start_line=_word(raw, form.start_line),
        kind=0 if form.kind is None else raw[form.kind],
        flags=0 if form.kind is None else raw[form.kind + 1],
    )


def _word(raw: bytes, at: int | None) -> int:
    return 0 if at is None else int.from_bytes(raw[at : at + 4], "little")


def _inline_table(raw: bytes, form: RecordFormat) -> int:
    has_one = form.inline_table < _word(raw, form.pcdata_count)
    return _word(raw, form.size + 4 * form.inline_table) if has_one else 0


def _inline_tree(raw: bytes, form: RecordFormat, address: int) -> int | None:
    if form.inline_tree >= raw[form.funcdata_count]:
        return None
    first = form.size + 4 * _word(raw, form.pcdata_count)
    # Addresses are aligned, offsets need not be.
    first += -(address + first) % form.funcdata_size
    at = first + form.funcdata_size * form.inline_tree
    if at + form.funcdata_size > len(raw):
        return None
    value = int.from_bytes(raw[at : at + form.funcdata_size], "little")
    return None if value == (_NO_TREE if form.funcdata_size == 4 else 0) else value
