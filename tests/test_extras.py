"""Optional parts are asked for in one sentence."""

import copy

import pytest

from aiene.errors import AieneError, MissingExtraError
from aiene.extras import need


def test_a_module_that_is_there_is_given():
    assert need("json", extra="none", purpose="Reading").loads("1") == 1


def test_a_missing_one_is_one_sentence_that_names_the_extra():
    with pytest.raises(MissingExtraError) as caught:
        need("no_such_module_of_anyone", extra="risk", purpose="Stratifying")
    assert str(caught.value) == "Stratifying needs no_such_module_of_anyone; install aiene[risk]."
    assert isinstance(caught.value, AieneError)
    assert str(copy.copy(caught.value)) == str(caught.value)
