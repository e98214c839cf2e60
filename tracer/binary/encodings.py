"""How a program writes down what its functions are: found in the program, where the pclntab's version does not say."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

from msgspec import Struct

from gomem.tracer.binary import function_records
from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.function_records import FunctionRecord, RecordFormat
from gomem.tracer.binary.inline_trees import CallSite
from gomem.tracer.binary.moduledata import words_behind
from gomem.tracer.binary.pclntab import FunctionTable
from gomem.tracer.errors import BinaryError

# Functions that are looked at to know the program; a quarter of them have an inline tree, each tenth is a wrapper.
_LOOKED_AT, _ASKED, _FEWEST_WRAPPERS = 1024, 64, 4
# The arrays behind a _func are short.
_RECORD_READ = 256
NO_KIND = -1


class Encoding(Struct, frozen=True):
    """How functions are written down.

    `tree_base`: the address that inline trees count from, None where there are none. `wrapper`: the funcID of code that
    the compiler made up, NO_KIND if that cannot be told.
    """

    form: RecordFormat
    tree_base: int | None
    wrapper: int


class _Sample(Struct, frozen=True):
    """The record of one of the program's functions, and the function's size in bytes."""

    record: FunctionRecord
    size: int


def encoding_of(exe: Executable, functions: FunctionTable) -> Encoding:
    """Return how the program writes down its functions. Raises BinaryError where its file is damaged.

    What is there is told by whether it makes sense: in the right format and counted from the right place, the inline
    tree of whatever function one looks at begins with a call of a function that has a name.
    """
    forms = function_records.FORMATS[functions.version]
    for form in forms:
        samples = _samples(exe, functions, form)
        asked = [one for one in samples if one.record.inline_table and one.record.inline_tree is not None][:_ASKED]
        for base in _tree_bases(exe, functions, form) if asked else ():
            if _makes_sense(exe, functions, form, base, asked):
                return Encoding(form, base, _wrapper(samples))
    # Of the formats that a version may have, the last one says least.
    return Encoding(forms[-1], None, _wrapper(samples))


def read_record(exe: Executable, functions: FunctionTable, form: RecordFormat, row: int) -> FunctionRecord | None:
    """Return the record of a row of the function table, None where it is cut. Raises BinaryError."""
    address = functions.record_address(exe, row)
    raw = exe.read_up_to(address, _RECORD_READ)
    if form.funcdata_size == 8:
        raw = exe.read_relocated(address, len(raw))
    return function_records.decode(raw, form, address)


def _samples(exe: Executable, functions: FunctionTable, form: RecordFormat) -> list[_Sample]:
    found = []
    for row in range(0, functions.count, max(functions.count // _LOOKED_AT, 1)):
        try:
            record = read_record(exe, functions, form, row)
        except BinaryError:
            continue
        if record:
            entry, end = functions.extent(row)
            found.append(_Sample(record, end - entry))
    return found


def _tree_bases(exe: Executable, functions: FunctionTable, form: RecordFormat) -> Iterator[int]:
    """Yield what inline trees may count from: 0 where they are told by address, else a word of moduledata.

    gofunc is one of them, at a place of its own in nearly every release.
    """
    if form.funcdata_size == 8:
        yield 0
    elif functions.moduledata is not None:
        yield from words_behind(exe, functions.moduledata)


def _makes_sense(
    exe: Executable, functions: FunctionTable, form: RecordFormat, base: int, samples: list[_Sample]
) -> bool:
    """Tell whether nearly all trees begin well; where the place is wrong, hardly one does."""
    odd = (one for one in samples if not _fits(exe, functions, form, base, one))
    return sum(1 for _ in itertools.islice(odd, len(samples) // 16 + 1)) <= len(samples) // 16


def _fits(exe: Executable, functions: FunctionTable, form: RecordFormat, base: int, sample: _Sample) -> bool:
    try:
        call = form.tree.decode(exe.read(base + (sample.record.inline_tree or 0), form.tree.packed.size))
    except BinaryError:
        return False
    if isinstance(call.site, CallSite):
        stands = call.site.parent >= -1 and call.site.line >= 0
    else:
        stands = 0 <= call.site < sample.size
    return stands and call.start_line >= 0 and functions.starts_name(call.name)


def _wrapper(samples: list[_Sample]) -> int:
    """Return the funcID of wrappers: each release numbers anew, but every other funcID is that of one or two functions.

    NO_KIND where it cannot be told.
    """
    kinds = Counter(sample.record.kind for sample in samples if sample.record.kind)
    (kind, count), *_ = kinds.most_common(1) or [(NO_KIND, 0)]
    return kind if count >= _FEWEST_WRAPPERS else NO_KIND
