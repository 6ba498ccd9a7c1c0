"""Kill -9 of the listener at random moments while studies come, with Orthanc as the archive; as root.

    PYTHONPATH=src:tests python -m tools.measurements.listener_kills [--kills 30] [--studies 6] [--out FILE]
    ... --kills 10 --seed 2 --out FILE       a piece: it is added to those that FILE has

The networks are replaced by planted nodes; journal, queue, export and sending are the true ones. Afterwards
every study must be there once, with the objects of a run that nobody disturbed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from importlib import import_module
from pathlib import Path


def main() -> None:
    """Kill, count, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--studies", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--longest-s", type=float, default=12.0)
    parser.add_argument("--out", type=Path)
    words = parser.parse_args()
    orthanc, kills = import_module("builders.orthanc"), import_module("builders.pacs_kills")
    with tempfile.TemporaryDirectory() as name, orthanc.own_network():
        folder = Path(name)
        known = {"aiene": ["AIENE", "127.0.0.1", orthanc.OUR_PORT]}
        with orthanc.Orthanc(folder / "orthanc", **known) as archive:
            ended = kills.trial(
                folder,
                archive,
                studies=words.studies,
                kills=words.kills,
                seed=words.seed,
                longest_s=words.longest_s,
            )
    result = {
        "seed": words.seed,
        "kills": ended.kills,
        "studies": len(ended.expected),
        "states_at_the_kills": list(ended.states),
        "failed": len(ended.failed),
        "objects_expected": sum(map(len, ended.expected.values())),
        "objects_in_the_archive": sum(map(len, ended.arrived.values())),
        "same_objects": ended.arrived == ended.expected,
    }
    print(json.dumps(result, indent=2))
    if words.out is not None:
        pieces = json.loads(words.out.read_text(encoding="utf-8")) if words.out.is_file() else []
        text = json.dumps([*pieces, result], indent=2)
        words.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
