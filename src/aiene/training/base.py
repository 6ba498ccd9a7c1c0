"""The bundle that a training begins with, and whether what it makes fits what lies at `-o` already.

Both networks of a bundle see the CT as its card says: laid onto its template by its profile. A network that
was trained on crops made otherwise would get inputs that it has never seen, without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aiene.errors import UsageError
from aiene.hashing import digest
from aiene.models.bundle import DEFAULT, Bundle, all_bundles, find_bundle, verify_bundle
from aiene.preprocess.profile import OPEN


def begin_with(start_from: str | None, there: Bundle | None) -> Bundle:
    """The bundle of `--from`; without it what lies at `-o`, and where nothing does the default bundle.

    Parameters
    ----------
    start_from : name or folder of a bundle.
    there : the bundle at `-o`.

    Raises
    ------
    ModelError : there is none, or it is damaged.
    """
    if start_from is None and there is not None:
        return there
    base = find_bundle(start_from or DEFAULT)
    verify_bundle(base)
    return base


def preparation_of(bundle: Bundle) -> dict[str, str]:
    """Everything on a bundle's card that decides what its networks see, by what it is called."""
    card = bundle.card
    centre = "the template's" if card.neck_centre_lps_mm is None else str(card.neck_centre_lps_mm)
    return {
        "profile": card.profile,
        "normalisation": card.classifier.normalisation,
        "rescue of the registration": "on" if card.rescue_registration else "off",
        "neck centre": centre,
        "template": card.files.get(card.template, "none")[:12],
        "spacing": " x ".join(f"{mm:g}" for mm in OPEN.crop_spacing) + " mm",
        "crop": " x ".join(map(str, OPEN.crop_size)),
    }


def preparation_identity(bundle: Bundle) -> str:
    """What decides how a CT is laid onto the template; the classifier's normalisation comes after that."""
    card = bundle.card
    return digest(
        [card.files.get(card.template), card.profile, card.neck_centre_lps_mm, card.rescue_registration]
    )


def check_fits(base: Bundle, out: Path, before: Mapping[str, str] | None) -> None:
    """Refuse to put a network beside one that sees its CTs otherwise.

    Parameters
    ----------
    base : what the training begins with.
    out : the bundle's folder.
    before : `preparation_of` the bundle that lies there, or of the training that was begun there; None where
        there is neither.

    Raises
    ------
    UsageError : they differ; it says in what, and which bundles would fit.
    """
    if not before:
        return
    ours = preparation_of(base)
    differing = sorted(name for name in ours.keys() | before.keys() if ours.get(name) != before.get(name))
    if not differing:
        return
    said = "; ".join(f"{name} {before.get(name, 'none')}, not {ours.get(name, 'none')}" for name in differing)
    fitting = sorted(
        {b.card.name for b in all_bundles() if isinstance(b, Bundle) and preparation_of(b) == before}
    )
    which = f"--from {' or '.join(fitting)} would fit" if fitting else "no bundle that is installed would fit"
    raise UsageError(
        f"{out.name} is prepared differently from {base.card.name} ({said}), so its two networks would not "
        f"see the same input; {which}, or leave "
        f"--from out where {out.name} is a bundle already, or choose another -o."
    )


@dataclass(frozen=True)
class Ground:
    """Where a training writes and what it begins with; nothing has been written yet.

    Parameters
    ----------
    out, work : folder of the bundle, and of the work beside it.
    base : the bundle whose template, profile and other network are taken.
    there : the bundle that lies at `out` already.
    """

    out: Path
    work: Path
    base: Bundle
    there: Bundle | None
