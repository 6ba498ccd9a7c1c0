"""Which labels are nodes and which the primary tumour: by name, by the user's word, or not to be known."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiene.errors import ModelError
from aiene.models.importers.trial import chosen_labels

SOURCE = Path("dataset.json")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["GTVp", "GTVn"], {"GTVp": 1, "GTVn": 2}),
        (["GTVn", "GTVp"], {"GTVn": 1, "GTVp": 2}),
        (["lymph_node"], {"GTVn": 1}),
        (["LymphNodes"], {"GTVn": 1}),
        (["Lymph node metastasis", "Primary tumour"], {"GTVn": 1, "GTVp": 2}),
        (["tumor", "node"], {"GTVp": 1, "GTVn": 2}),
        (["gtv-n", "gtv-t"], {"GTVn": 1, "GTVp": 2}),
        (["GTV N", "GTV_p"], {"GTVn": 1, "GTVp": 2}),
        (["nodal_tumor"], {"GTVn": 1}),
        (["parotid_l", "cord", "GTVn", "mandible", "GTVp"], {"GTVn": 3, "GTVp": 5}),
        (["lymph_node", "benign_lymph_node"], {"GTVn": 1}),
        (["LN", "LN_level_II"], {"GTVn": 1}),
        (["GTVn", "CTVn", "lesion"], {"GTVn": 1}),
        (["GTVn", "GTV"], {"GTVn": 1}),
    ],
)
def test_names_that_say_it_are_understood(names: list[str], expected: dict[str, int]) -> None:
    labels = {"background": 0} | {name: value for value, name in enumerate(names, 1)}
    found = chosen_labels(SOURCE, labels)
    assert found.labels == expected
    assert set(found.left_out) == set(names) - {names[value - 1] for value in expected.values()}
    assert ("none is looked for" in str(found)) == ("GTVp" not in expected)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            ["GTVp"],
            r"no label name refers to lymph nodes; it has 1 \(GTVp\); name .* --nodes-label",
        ),
        (["class_1", "class_2"], r"it has 1 \(class_1\), 2 \(class_2\)"),
        (["GTVn_left", "GTVn_right"], r"several .* lymph nodes: 1 \(GTVn_left\), 2 \(GTVn_right\)"),
        (["GTVn", "gtvn"], "several"),
        (
            ["node", "tumor", "primary"],
            r"several .* primary tumour: 2 \(tumor\), 3 \(primary\).* --primary-label",
        ),
        (["normal_lymph_node"], "no label name"),
        (["lymphoma", "nodule", "anode"], "no label name"),
        (["lymph_node_levels"], "no label name"),
        ([], "none but the background"),
    ],
)
def test_names_that_leave_it_open_are_refused(names: list[str], words: str) -> None:
    labels = {"background": 0} | {name: value for value, name in enumerate(names, 1)}
    with pytest.raises(ModelError, match=words):
        chosen_labels(SOURCE, labels)


def test_a_background_that_is_called_nodes_is_none() -> None:
    with pytest.raises(ModelError, match="no label name"):
        chosen_labels(SOURCE, {"lymph_node": 0, "other": 1})


@pytest.mark.parametrize(
    ("nodes", "primary", "expected"),
    [
        ("2", None, {"GTVn": 2, "GTVp": 1}),
        ("lesion", None, {"GTVn": 2, "GTVp": 1}),
        ("lesion", "none", {"GTVn": 2}),
        ("2", "3", {"GTVn": 2, "GTVp": 3}),
        ("tumor", "lesion", {"GTVn": 1, "GTVp": 2}),
    ],
)
def test_the_users_word_counts_by_name_and_by_number(
    nodes: str, primary: str | None, expected: dict[str, int]
) -> None:
    labels = {"background": 0, "tumor": 1, "lesion": 2, "organ": 3}
    assert chosen_labels(SOURCE, labels, nodes=nodes, primary=primary).labels == expected


@pytest.mark.parametrize(
    ("nodes", "primary", "words"),
    [
        ("4", None, r"no label 4; it has 1 \(GTVp\), 2 \(GTVn\); name one of these as --nodes-label"),
        ("0", None, "no label 0"),
        ("background", None, "no label background"),
        ("ignore", None, "no label ignore"),
        ("", None, r"no label \(empty\)"),
        (None, "5", "no label 5.* --primary-label"),
        ("2", "GTVn", "nodes and primary tumour at once"),
    ],
)
def test_a_word_that_names_no_label_is_refused(nodes: str | None, primary: str | None, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        chosen_labels(SOURCE, {"background": 0, "GTVp": 1, "GTVn": 2}, nodes=nodes, primary=primary)
