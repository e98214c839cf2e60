from __future__ import annotations

from gomem.tracer.doctor.settings import kernel_checks
from gomem.tracer.doctor.trials import process_checks, subjects


def test_this_machine_gets_an_answer_to_every_question() -> None:
    with subjects() as tried:
        found = [*kernel_checks(), *process_checks(tried)]
    checks = {check.name: check for check in found}
    assert len(checks) == len(found)
    assert all(check.detail for check in checks.values())
    assert all(check.fix for check in checks.values() if check.ok is False)
    assert checks["own processes"].ok is True
