"""The answer of the default bundle that `aiene doctor` compares with; to be made again with each new bundle.

    python -m tools.measurements.doctor_expected

Writes src/aiene/doctor/expected.json, by the bundle's SHA-256.
"""

from __future__ import annotations

import json
from pathlib import Path

from aiene.doctor.bundles import answer_of
from aiene.models.bundle import DEFAULT, find_bundle

FILE = Path(__file__).resolve().parents[2] / "src" / "aiene" / "doctor" / "expected.json"


def main() -> None:
    """Run, write, tell."""
    bundle = find_bundle(DEFAULT)
    content = {bundle.sha256: {"bundle": bundle.card.name, **answer_of(bundle)._asdict()}}
    FILE.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(content, indent=2))


if __name__ == "__main__":
    main()
