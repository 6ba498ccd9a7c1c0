"""The figures on the bundle's card: counted by hand on small results."""

from __future__ import annotations

import numpy as np
import pytest

from aiene.geometry.grid import Grid, RigidTransform, Volume
from aiene.phantom.lesions import Lesion, Lobe, Margin
from aiene.preprocess.preprocess import Prepared
from aiene.preprocess.registration_quality import RegistrationReport
from tools.default_bundle import bundle_card, evaluate, evaluate_ene
from tools.default_bundle.curve import false_pieces
from tools.default_bundle.judging import Judged, JudgedNode, Unplanted, alike_places, drawn_on_the_ct

TWO = [
    Judged(
        (
            JudgedNode(8.0, 2.0, "II", 20.0, 0.0, 0.0, enhanced=True),
            JudgedNode(12.0, 2.5, "II", 0.0, 0.8, 0.9, enhanced=False, drawn=0.8),
        ),
        false_pos=(0.1, 0.3, 0.7),
        false_ene=0,
        fragments=1,
        primary=0.6,
        false_primaries=1,
    ),
    Judged(
        (JudgedNode(16.0, 4.0, "III", -8.0, 0.6, 0.2, enhanced=True, drawn=0.9),),
        false_pos=(0.0,),
        false_ene=1,
        fragments=0,
        primary=0.4,
    ),
    None,
]


def test_what_is_found_is_counted_by_size_and_by_the_classifiers_word() -> None:
    figures = evaluate.summary(TWO, 0.2)
    assert (figures["cases"], figures["cases_failed"], figures["nodes"]) == (3, 1, 3)
    assert figures["sensitivity"] == pytest.approx(2 / 3, abs=1e-3)
    assert figures["sensitivity_10_mm_and_more"] == 1.0
    assert figures["by_short_axis"] == {
        "under 10 mm": {"nodes": 1, "found": 0},
        "10 to 15 mm": {"nodes": 1, "found": 1},
        "over 15 mm": {"nodes": 1, "found": 1},
    }
    assert figures["sensitivity_10_mm_and_3_voxels"] == 1.0
    assert figures["by_voxels_across"] == {
        "3 to 5": {"nodes": 1, "found": 1},
        "under 3": {"nodes": 2, "found": 1},
    }
    assert figures["by_level"] == {"II": {"nodes": 2, "found": 1}, "III": {"nodes": 1, "found": 1}}
    assert figures["by_enhancement"]["plain"] == {"nodes": 1, "found": 1}
    assert figures["by_contrast"]["under muscle"] == {"nodes": 1, "found": 1}
    assert (figures["primaries"], figures["primaries_found"]) == (2, 0.5)
    assert figures["false_primaries_per_case"] == 0.5
    assert figures["false_nodes_per_case"] == 2.0
    assert figures["dice_per_found_node"] == 0.7
    assert figures["dice_of_a_perfect_hand"] == 0.85  # of the two that are found
    assert figures["by_pos"] == [
        {
            "pos_from": 0.2,
            "sensitivity_10_mm_and_more": 1.0,
            "sensitivity_10_mm_and_3_voxels": 1.0,
            "false_nodes_per_case": 1.0,
        },
        {
            "pos_from": 0.5,
            "sensitivity_10_mm_and_more": 0.5,
            "sensitivity_10_mm_and_3_voxels": 0.0,
            "false_nodes_per_case": 0.5,
        },
    ]
    assert figures["false_ene_nodes_per_case"] == 0.5


def test_the_card_tells_each_figure_and_its_fall() -> None:
    patients = [
        evaluate.PatientFigures(
            {evaluate.AS_IT_IS: TWO, "noise of 20 HU": [TWO[1]]},  # type: ignore[attr-defined]
            [TWO[0]],
            (5, 1),
            (
                Unplanted(nodes=4, volume=100, hit=60, chance=0.2, chance_matched=0.3, anywhere=True),
                Unplanted(nodes=2, volume=80, hit=56, chance=0.2, chance_matched=0.4, anywhere=False),
            ),
        )
    ]
    figures = evaluate.figures_of(patients, [evaluate.AS_IT_IS, "noise of 20 HU"], 0.5)  # type: ignore[attr-defined]
    assert figures["planted_by_real_numbers"]["nodes"] == 2
    assert figures["blank_plantings"] == {"places": 5, "new_nodes_found": 1}
    assert figures["real_nodes"]["share_of_found_volume_in_high_dose_target"] == 0.6
    table = bundle_card._real_table(figures)
    assert "| found, short axis under 10 mm | 0 of 1 |" in table
    assert "| share of their volume in the high-dose target | 0.6 |" in table
    assert "| of nodes that count: share of their volume in the high-dose target | 0.7 |" in table
    assert "| of nodes that count: patients with one in the target | 0.0 |" in table
    assert "| where `pos` is 0.5 and more: false nodes per case | 0.5 |" in table
    numbers = bundle_card._numbers_table(figures)
    assert "| found, level II | 1 of 2 |" in numbers
    assert "| of these, found (half of the volume) | 1.0 |" in numbers
    assert f"| {bundle_card.PERFECT} | 0.85 |" in table
    falls = bundle_card._robustness(figures)
    assert "| as it is | 1.000 (+0.000) | 3.000 (+0.000) | 0.800 (+0.000) | 0 |" in falls
    assert "| noise of 20 HU | 1.000 (+0.000) | 1.000 (-2.000) | 0.600 (-0.200) | 0 |" in falls


@pytest.mark.slow
def test_extension_is_told_by_strength_and_calibrated() -> None:
    """Probabilities that are right on the average, and one group that is certain and wrong."""
    rng = np.random.default_rng(0)
    ene = rng.uniform(0, 1, 1600)
    truth = rng.random(1600) < ene
    rows = np.column_stack([np.where(truth, 0.5, 0.0), ene])
    figures = evaluate_ene.figures_of(rows, np.arange(1600) // 4, threshold=0.5)
    assert figures["expected_calibration_error"] < 0.03
    assert figures["by_strength"]["plain"]["nodes"] == truth.sum()
    assert set(figures["by_strength"]) == {"none", "plain"}
    wrong = rows[:400].copy()
    wrong[:, 1] = np.where(truth[:400], 0.01, 0.99)
    figures = evaluate_ene.figures_of(wrong, np.arange(400) // 4, threshold=0.5)
    assert figures["expected_calibration_error"] > 0.7
    assert figures["auc"] == 0.0
    assert figures["by_strength"]["none"]["certain_yes"] == 1.0
    assert "| none |" in bundle_card._ene_table(figures)


def test_a_perfect_hand_loses_what_the_voxels_of_the_ct_cost() -> None:
    """The coarser the CT, the less of a ball its voxels can draw; turned and shifted against the crop."""
    turn = np.eye(4)
    turn[:2, :2] = [[0, -1], [1, 0]]
    turn[:3, 3] = 7.0, -30.0, 4.0
    to_native = RigidTransform.from_matrix(turn)
    crop = Volume(
        np.zeros((32, 48, 48), np.float32), Grid((32, 48, 48), (1.0, 1.0, 1.0), (-24.0, -24.0, -16.0))
    )
    place = Prepared(
        crop, crop.grid, to_native, RegistrationReport("geometry", -1.0, (), 1, 0, 0, 1, None, True)
    )
    (x, y, z), radius = to_native.apply(np.zeros((1, 3)))[0], 7.0
    ball = Lesion(
        (Lobe((x, y, z), (radius,) * 3, ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))),),
        Margin(0.0, (), 1.0, 0.0, 0.0),
        *(50.0, 0.0, 0.0, 2),
    )
    truth = (np.linalg.norm(crop.grid.points(np.argwhere(crop.array == 0)), axis=1) < radius).reshape(
        crop.grid.size
    )
    values = []
    for mm in (0.5, 2.0, 4.0, 8.0):
        size = round(64 / mm)
        edge = mm / 4 - 32
        native = Grid((size,) * 3, (mm,) * 3, (float(x) + edge, float(y) + edge, float(z) + edge))
        values.append(drawn_on_the_ct(ball, truth, native, place))
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.96
    assert 0.5 < values[3] < 0.85


def test_a_false_primary_is_a_piece_that_lies_in_no_planted_one_and_hardly_where_nothing_counts() -> None:
    called, primary, nowhere = (np.zeros((4, 9, 40), dtype=bool) for _ in range(3))
    called[1, 1, 1:11] = True  # half of it in the planted one
    primary[1, 1, 1:6] = True
    called[1, 4, 1:11] = True  # by four tenths in the target
    nowhere[1, 4, 1:5] = True
    assert len(false_pieces(called, primary, nowhere)[1]) == 0
    called[1, 7, 1:11] = True  # by three tenths
    nowhere[1, 7, 1:4] = True
    called[3, 1, 30:33] = True
    assert len(false_pieces(called, primary, nowhere)[1]) == 2


def test_like_places_are_as_bright_as_high_and_as_far_from_the_midline() -> None:
    """A bright band on each side, in one half of the height: only there, and on both sides."""
    crop = np.full((20, 40, 60), 0.5, dtype=np.float32)
    crop[:10, :, 5:20] = crop[:10, :, 40:55] = 0.6  # 0.1 of the window is 45 HU
    crop[:, :3] = 0.0
    mask = np.zeros(crop.shape, dtype=bool)
    mask[4:6, 20:24, 44:48] = True
    volume = Volume(crop, Grid((20, 40, 60), (3.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    z, y, x = alike_places(volume)(mask).T
    assert z.max() <= 9
    assert y.min() >= 3
    assert (np.abs(np.abs(x - 29.5) - np.abs(45.5 - 29.5)) <= 10).all()
    assert (x < 20).any()
    assert (x > 40).any()
    assert not ((x > 21) & (x < 38)).any()
