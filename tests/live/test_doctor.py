from __future__ import annotations

import os
import platform

from tracer.doctor import kernel_checks


def test_this_machine_gets_an_answer_to_every_question() -> None:
    checks = {check.name: check for check in kernel_checks()}
    assert len(checks) == len(kernel_checks())
    assert all(check.detail for check in checks.values())
    assert all(check.fix for check in checks.values() if check.ok is False)
    major, minor = (int(word) for word in platform.release().split(".")[:2])
    if (major, minor) >= (6, 7):
        assert checks["PAGEMAP_SCAN"].ok is True
    if os.geteuid() == 0:
        assert checks["pagemap"].ok is True
