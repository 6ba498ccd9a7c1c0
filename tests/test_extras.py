"""Optional parts are asked for in one sentence."""

import copy
from pathlib import Path

import pytest

from aiene.errors import AieneError, MissingExtraError, need


def test_a_module_that_is_there_is_given() -> None:
    assert need("json", extra="none", purpose="Reading").loads("1") == 1


def test_a_missing_one_is_one_sentence_that_names_the_extra() -> None:
    with pytest.raises(MissingExtraError) as caught:
        need("no_such_module_of_anyone", extra="risk", purpose="Stratifying")
    assert str(caught.value) == "Stratifying needs no_such_module_of_anyone; install aiene[risk]."
    assert isinstance(caught.value, AieneError)
    assert str(copy.copy(caught.value)) == str(caught.value)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("raise RuntimeError('operator torchvision::nms does not exist')", "operator torchvision::nms"),
        ("raise OSError('libcudart.so.13: cannot open')", "libcudart"),
        ("import no_such_part_of_it", "No module named 'no_such_part_of_it'"),
    ],
)
def test_one_that_is_there_but_does_not_load_is_one_sentence_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, why: str
) -> None:
    (tmp_path / "half_a_module.py").write_text(body + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingExtraError) as caught:
        need("half_a_module", extra="timm", purpose="A timm model")
    said = str(caught.value)
    assert said.startswith("A timm model needs half_a_module, which is installed but cannot be loaded (")
    assert why in said
    assert str(copy.copy(caught.value)) == said
