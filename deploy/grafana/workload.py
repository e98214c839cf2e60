"""The dashboard of a workload over its restarts."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana.choice import BELONGS, PLACE, PROCESS, Chosen, by, kills, total, tracers, workload
from deploy.grafana.choice import process as process_choice
from deploy.grafana.leading import ROW_TO_PAGE, ROW_TO_PROCESS, marks
from deploy.grafana.panels import (
    NEAR_A_LIMIT,
    NONE_IS_MUST,
    NONE_IS_WELL,
    Panel,
    Query,
    arrange,
    board,
    lines,
    number,
    rows,
    states,
)
from deploy.grafana.shared import OF_CGROUP, OF_PLACE, SEVERITIES, alert_rows, finding_rows, places, share, top, worst


def over_restarts() -> dashboard.Dashboard:
    """Show a workload over its restarts: what of it goes on, and what begins anew."""
    made = board(
        "gomem-workload", "gomem: a workload over restarts",
        "The pods and containers of a workload, or the processes of one name, over their restarts: a container that "
        "starts anew is the same line.",
        [*tracers(), *workload(), process_choice()],
    )  # fmt: skip
    some = Chosen()
    started = some.series("gomem_process_start_time_seconds")
    used, limit = (some.series(f"gomem_memory_limit{what}_bytes") for what in ("_usage", ""))

    def figure(metric: str, more: str = "") -> str:
        return by(PLACE, some.series(metric, more))

    panels: list[Panel] = [
        number("RSS", "Resident memory of all that are chosen.", total(some.series("gomem_process_resident_bytes")),
               unit="bytes"),
        number("Processes", "That are followed now.", total(some.series("gomem_process_state"))),
        number("Starts", "How often a place had another process, in the time that is shown.",
               f"sum(changes((max by ({PLACE}) ({started}))[$__range:]))", levels=NONE_IS_WELL),
        number("Kills", "By the kernel, for want of memory, in the time that is shown.", total(kills()),
               levels=NONE_IS_MUST),
        number("Youngest", "Age of the process that started last.", f"min(time() - ({started}))", unit="s"),
        number("Oldest", "Age of the process that runs longest.", f"max(time() - ({started}))", unit="s"),
        places("RSS", "A leak starts again from below after each restart.", figure("gomem_process_resident_bytes")),
        places("Live heap", "What collections find reachable: a leak is a saw whose teeth are restarts.",
                figure("gomem_heap_live_bytes")),
        states("The worst finding", "Of each place, over its restarts.",
               Query(f"topk(20, {worst(some, PLACE)})", OF_PLACE), SEVERITIES),
        lines("Share of the container's limit", "What the kernel cannot take back.", [top(share(some), OF_CGROUP)],
              unit="percentunit", levels=NEAR_A_LIMIT),
        places("Share of GOMEMLIMIT", "What the limit is held against, as a share of it.",
                f"max by ({PLACE}) ({used}) / max by ({PLACE}) ({limit})", unit="percentunit", levels=NEAR_A_LIMIT),
        places("Goroutines", "That exist.", figure("gomem_goroutines"), unit="short"),
        places("Age", "Seconds since the start: falls to 0 at each restart.",
                f"min by ({PLACE}) (time() - ({started}))", unit="s"),
        rows("Places", "The newest figures of each process.",
             [Query(by(f"{PROCESS}, {BELONGS}", some.series("gomem_process_resident_bytes"))),
              Query(by(PROCESS, some.series("gomem_heap_live_bytes"))),
              Query(by(PROCESS, some.series("gomem_goroutines"))),
              Query(f"max by ({PROCESS}) (time() - ({started}))"),
              Query(worst(some, PROCESS))],
             renamed={"Value #A": "RSS", "Value #B": "live", "Value #C": "goroutines", "Value #D": "age",
                      "Value #E": "worst finding"},
             units={"RSS": "bytes", "live": "bytes", "age": "s"}, hidden=("__name__",), unseen=("job",), height=10,
             links={"process": [ROW_TO_PROCESS.built()], "pid": [ROW_TO_PAGE.built()]},
             levels={"worst finding": [(value or None, colour) for value, (_, colour) in enumerate(SEVERITIES)]}),
        finding_rows(some),
        alert_rows(),
    ]  # fmt: skip
    return arrange(made, panels, marks(some))
