"""The kernel's own BTF, read by us and by libbpf."""

from __future__ import annotations

import ctypes

import pytest

from gomem.bpf import kernel_functions
from gomem.bpf.probes.call_functions import COMPAT, NATIVE, are_complete

FUNCTION = 12  # BTF_KIND_FUNC
STRUCTURE = "task_struct"  # which is no function


def test_the_memory_calls_functions_have_the_ids_that_libbpf_finds() -> None:
    try:
        libbpf = ctypes.CDLL("libbpf.so.1")
    except OSError:
        pytest.skip("there is no libbpf")
    if not kernel_functions.BTF.exists():
        pytest.skip("the kernel has no BTF")
    libbpf.btf__load_vmlinux_btf.restype = ctypes.c_void_p
    libbpf.btf__find_by_name_kind.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32)
    types = libbpf.btf__load_vmlinux_btf()
    names = frozenset((*NATIVE.values(), *COMPAT, STRUCTURE, "no_such_function"))
    found = {name: libbpf.btf__find_by_name_kind(types, name.encode(), FUNCTION) for name in names}
    assert kernel_functions.ids_of(names) == {name: number for name, number in found.items() if number > 0}
    assert are_complete(kernel_functions.ids_of(names))
    assert not are_complete(kernel_functions.ids_of(names).keys() - {NATIVE["brk"]})
    assert not are_complete(kernel_functions.ids_of(names).keys() - {COMPAT[0]})
