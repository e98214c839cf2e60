"""Write the dashboards as JSON: python -m deploy.grafana.generate [DIRECTORY]."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.boards import BOARDS

HERE = Path(__file__).parent / "dashboards"


def text_of(name: str) -> str:
    """Return the JSON of a dashboard: "overview", "process" or "tracer"."""
    plain = json.loads(JSONEncoder(sort_keys=True).encode(BOARDS[name]().build()))
    return json.dumps(plain, indent=2, sort_keys=True) + "\n"


def main(directory: Path) -> None:
    """Write all of them."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in BOARDS:
        (directory / f"{name}.json").write_text(text_of(name))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
