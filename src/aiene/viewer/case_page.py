"""The page of one patient: what was found, on the CT that it was found in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aiene.csv_tables import probability_text
from aiene.errors import AieneError, ModelError
from aiene.finished_runs import RunRecord, read_labels
from aiene.geometry.grid import Grid, RigidTransform, Volume
from aiene.models.bundle import ModelCard, find_bundle
from aiene.nodes.node import CountingRule
from aiene.preprocess.preprocess import load_preparation
from aiene.report.document import RESEARCH_ONLY
from aiene.report.formatting import NOTHING
from aiene.results.nifti import nifti_bytes
from aiene.results.pictures import key_index
from aiene.results.records import CaseResult, NodeResult
from aiene.viewer import embedded
from aiene.viewer.embedded import key_picture, registration_picture, thumbnail
from aiene.viewer.risk_groups import Group
from aiene.viewer.scene import Scene, scene_of, surfaces

_SCRIPTS = (embedded.NIIVUE, "volume.js", "viewer.js", "report.js")


@dataclass(frozen=True, eq=False)
class Found:
    """What of a case lies there now.

    Parameters
    ----------
    result : its record.
    scene : its neck with its labels; None where there are no label maps.
    ct : HU on the whole native grid; None where it is gone.
    problems : why something cannot be shown, a sentence each.
    """

    result: CaseResult
    scene: Scene | None
    ct: Volume | None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class CasePage:
    """A page, and what the page of the cohort shows of it.

    Parameters
    ----------
    html : the whole file.
    thumbnail : JPEG; empty where there is nothing to show.
    """

    html: str
    thumbnail: bytes
    problems: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Model:
    """What is shown of the bundle that a run was made with.

    Parameters
    ----------
    card : its `model.json`.
    template : HU in its own space.
    """

    card: ModelCard
    template: Volume


def model_of(run: RunRecord) -> Model | None:
    """The bundle of a run; None where it is not here any more, or is another one by now."""
    try:
        bundle = find_bundle(run.model)
        if bundle.sha256 != run.maker.bundle_sha256:
            return None
        return Model(bundle.card, load_preparation(bundle).template.volume)
    except ModelError:
        return None


def found_of(result: CaseResult, folder: Path, ct: Volume | str) -> Found:
    """A case's label maps and its CT, where they lie.

    Parameters
    ----------
    folder : of the case, with `labels.nii.gz` and `nodes.nii.gz`.
    ct : the CT, or why there is none.
    """
    if result.status not in ("ok", "no_nodes"):
        return Found(result, None, None)
    problems = [ct] if isinstance(ct, str) else []
    volume = ct if isinstance(ct, Volume) else None
    grid = Grid.from_facts(result.facts["native"])
    try:
        nodes = read_labels(folder / "nodes.nii.gz", grid, np.uint16)
        labels = read_labels(folder / "labels.nii.gz", grid, np.uint8)
        scene = scene_of(volume, nodes, labels, *crop_of(result))
    except AieneError as error:
        return Found(result, None, volume, (*problems, f"The outlines cannot be shown: {error}"))
    return Found(result, scene, volume, tuple(problems))


def crop_of(result: CaseResult) -> tuple[Grid, RigidTransform] | tuple[None, None]:
    """The networks' crop and its way to the CT, as the record of a case has them; None where it has none."""
    if "crop" not in result.facts or "to_native" not in result.facts:
        return None, None
    return Grid.from_facts(result.facts["crop"]), RigidTransform.from_matrix(result.facts["to_native"])


def case_page(
    found: Found,
    run: RunRecord,
    *,
    model: Model | None,
    group: Group | None = None,
    cohort: str = "",
) -> CasePage:
    """The page of a case.

    Parameters
    ----------
    model : None where the bundle is gone.
    group : the patient's risk group, where a clinical table was given.
    cohort : link to the cohort's page; empty for none.

    Raises
    ------
    MissingExtraError : jinja2 is not installed.
    """
    result, scene = found.result, found.scene
    changed = ""
    data: list[tuple[str, str]] = []
    keyslices: list[dict[str, Any]] = []
    if scene is not None:
        data.append(("labels", embedded.packed(nifti_bytes(scene.labels))))
        if scene.ct is not None:
            ct, changed = embedded.packed_ct(scene.ct)
            data.append(("ct", ct))
            keyslices = _key_slices(scene, result, run)
        if scene.labels.array.any():
            shapes = json.dumps(surfaces(scene), separators=(",", ":"))  # too large to be read by people
            data.append(("surfaces", embedded.packed(shapes.encode())))
    registration = _registration(found, None if model is None else model.template)
    html = embedded.page(
        "patient.html.j2",
        run.maker.notice,
        _SCRIPTS,
        case=result,
        cohort=cohort,
        attention=[*found.problems, *result.warnings],
        registration=registration,
        trusted=bool(result.facts.get("registration", {}).get("trusted", True)),
        figures=_figures(result, group) if scene is not None or result.status == "ok" else [],
        nodes=[_row(node, run.rule) for node in result.nodes],
        rule=run.rule,
        surfaces=scene is not None and bool(scene.labels.array.any()),
        keyslices=keyslices,
        facts=_facts(result, run) + ([("Shown here", changed)] if changed else []),
        card="" if model is None else model.card.model_dump_json(indent=2, exclude={"files"}),
        licences=embedded.asset(embedded.LICENCES),
        about=embedded.as_json(about(scene, result)),
        data=data,
    )
    return CasePage(html, _thumbnail(scene, result), found.problems)


def about(scene: Scene | None, result: CaseResult) -> dict[str, Any]:
    """What the scripts of a page need to know of a case."""
    if scene is None:
        return {"hasLabels": False, "nodes": []}
    grid = scene.grid
    affine = grid.affine[:3, [2, 1, 0, 3]]  # from voxels (x, y, z) to LPS mm
    return {
        "hasLabels": True,
        "affine": affine.tolist(),
        "nodes": [
            {
                "value": node.value,
                "name": node.name,
                "kind": _kind(node),
                "short": f"{node.value}{' ENE' if node.ene_classification == 1 else ''}",
                "key": key_voxel(scene, node.value),
            }
            for node in result.nodes
        ],
    }


def key_voxel(scene: Scene, value: int) -> list[int] | None:
    """Where a page looks at a node, (x, y, z) of the block; None where it has no voxel."""
    node = scene.labels.array == value
    return [int(v) for v in key_index(node)[::-1]] if node.any() else None


def _kind(node: NodeResult) -> str:
    return {1: "ene", 0: "none", None: "unknown"}[node.ene_classification]


def _row(node: NodeResult, rule: CountingRule) -> dict[str, Any]:
    verdict = {1: "yes", 0: "no", None: "not judged"}[node.ene_classification]
    cut = node.touches_crop_border or node.touches_ct_border
    warnings = (["may be cut off at a border"] if cut else []) + (
        ["it contains no voxel centre of the CT"] if not node.native_volume_mm3 else []
    )
    return {
        "value": node.value,
        "name": node.name,
        "kind": _kind(node),
        "verdict": verdict,
        "ene": probability_text(node.ene, (rule.ene_threshold,), missing=NOTHING),
        "pos": probability_text(node.pos, (rule.pos_from,), missing=NOTHING),
        "volume": _number(node.native_volume_mm3, 0),
        "axes": f"{_number(node.native_long_axis_mm, 1)} x {_number(node.native_short_axis_mm, 1)}"
        if node.native_long_axis_mm is not None
        else NOTHING,
        "side": node.side or NOTHING,
        "warning": "; ".join(warnings),
    }


def _number(value: float | None, digits: int) -> str:
    return NOTHING if value is None else f"{value:.{digits}f}"


def _figures(result: CaseResult, group: Group | None) -> list[dict[str, Any]]:
    sides = [node.side for node in result.nodes]
    volumes = [node.native_volume_mm3 for node in result.nodes]
    about_sides = (
        f"{sides.count('left')} left, {sides.count('right')} right, {sides.count('midline')} midline"
        if result.sides_known
        else "the file does not say which side is left"
    )
    primary = {True: "found", False: "not found", None: "not looked for"}[result.has_primary]
    shown: list[dict[str, Any]] = [
        {"title": "AI-ENE number", "value": str(result.n_ai_ene), "note": "nodes with ENE"},
        {"title": "Nodes", "value": str(len(result.nodes)), "note": about_sides if result.nodes else ""},
        {"title": "All nodes", "value": f"{sum(volumes):.0f} mm³", "note": ""},
        {"title": "Primary tumour", "value": primary, "note": "", "word": True},
    ]
    if group is not None:
        shown.insert(1, {"title": "Risk group", "value": group.name, "note": group.words, "word": True})
    return [{"word": False, **figure} for figure in shown]


def _key_slices(scene: Scene, result: CaseResult, run: RunRecord) -> list[dict[str, Any]]:
    if scene.ct is None:
        return []
    slices = []
    for node in result.nodes:
        if not (scene.labels.array == node.value).any():
            continue
        row = _row(node, run.rule)
        slices.append(
            {
                "value": node.value,
                "name": node.name,
                "words": f"ENE {row['verdict']} ({row['ene']}), malignant {row['pos']}, {row['volume']} mm³, "
                f"axes {row['axes']} mm, {row['side']}",
                "picture": embedded.jpeg_source(key_picture(scene.ct, scene.labels, node.value)),
            }
        )
    return slices


def _thumbnail(scene: Scene | None, result: CaseResult) -> bytes:
    """The node of the highest ENE probability, else the whole neck; of a CT that is gone nothing."""
    if scene is None or scene.ct is None:
        return b""
    there = [node for node in result.nodes if (scene.labels.array == node.value).any()]
    most = max(there, key=lambda node: (-1.0 if node.ene is None else node.ene, -node.value), default=None)
    return thumbnail(scene.ct, scene.labels, None if most is None else most.value)


def _registration(found: Found, template: Volume | None) -> dict[str, Any] | None:
    report = found.result.facts.get("registration")
    if not report:
        return None
    picture = ""
    if found.ct is not None:
        crop, to_native = crop_of(found.result)
        if crop is not None and to_native is not None:
            picture = embedded.jpeg_source(registration_picture(found.ct, crop, to_native, template))
    words = (
        f"Overlap of the bodies {report['body_overlap']:.0%} (Dice), turned by {report['angle_degrees']:.0f} "
        f"degrees, moved by {report['shift_mm']:.0f} mm; the CT covers {report['covered']:.0%} of the crop."
    )
    if template is None:
        words += " The model bundle is no longer installed, so its template is not shown."
    return {"picture": picture, "words": words}


def _facts(result: CaseResult, run: RunRecord) -> list[tuple[str, str]]:
    maker, given = run.maker, result.facts.get("input", {})
    native = result.facts.get("native", {})
    rows = [
        ("CT", result.source or NOTHING),
        ("Content (SHA-256)", str(given.get("sha256", NOTHING))),
        ("Model", f"{maker.bundle_name} {maker.bundle_version} (SHA-256 {maker.bundle_sha256})"),
        ("Contours", "the user's own masks" if maker.own_masks else "found by the model's segmenter"),
        ("What counts", run.rule.sentence.replace("`", "")),
        ("Software", f"aiene {maker.software_version}"),
        ("Run", f"{maker.started:%Y-%m-%d %H:%M} UTC"),
        ("Intended use", f"{maker.notice} {RESEARCH_ONLY}"),
    ]
    if native:
        size = " x ".join(str(n) for n in native["size_zyx"][::-1])
        mm = " x ".join(f"{v:.3g}" for v in native["spacing_zyx_mm"][::-1])
        rows.insert(2, ("CT grid", f"{size} voxels of {mm} mm"))
    rows += [("Note", note) for note in result.notes]
    return rows
