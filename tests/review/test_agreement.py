"""Agreement against values computed by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from aiene.cli.app import app
from aiene.errors import UsageError
from aiene.review.agreement import agreement, icc
from aiene.review.session import Change
from builders.export_runs import Run
from builders.reviews import CountingReview


def test_icc_of_the_textbook() -> None:
    """Shrout and Fleiss (1979), table 2, judges 1 and 2: by the formulas of their table 3."""
    ratings = np.array([[9, 2], [6, 1], [8, 4], [7, 1], [10, 5], [6, 2]], dtype=float)
    n, k = ratings.shape
    rows, columns, grand = ratings.mean(axis=1), ratings.mean(axis=0), ratings.mean()
    bms = k * ((rows - grand) ** 2).sum() / (n - 1)
    jms = n * ((columns - grand) ** 2).sum() / (k - 1)
    residual = ratings - rows[:, None] - columns[None] + grand
    ems = (residual**2).sum() / ((n - 1) * (k - 1))
    expected = (bms - ems) / (bms + (k - 1) * ems + k * (jms - ems) / n)
    value = icc(ratings[:, 0], ratings[:, 1])(np.ones((1, n)))[0]
    assert value == pytest.approx(expected)
    twice = icc(ratings[:, 0], ratings[:, 1])(np.full((1, n), 2.0))[0]
    doubled = np.repeat(ratings, 2, axis=0)
    assert twice == pytest.approx(icc(doubled[:, 0], doubled[:, 1])(np.ones((1, 2 * n)))[0])
    assert icc(ratings[:, 0], ratings[:, 0])(np.ones((1, n)))[0] == pytest.approx(1)
    assert np.isnan(icc(np.ones(4), np.ones(4))(np.ones((1, 4)))[0])


def test_readers_and_the_model_are_compared(run: Run) -> None:
    with pytest.raises(UsageError, match="not been reviewed"):
        agreement(run.out)
    anna, ben = CountingReview(run.out, "anna"), CountingReview(run.out, "ben")
    drawing = anna.open("case").scene.labels.array.copy()
    drawing[drawing == 2] = 0
    anna.save("case", Change(drawing, 0, "corrected"))
    ben.save("case", Change(None, 0, "accepted"))
    found = {(pair.first, pair.second): pair for pair in agreement(run.out)}
    assert set(found) == {("model", "anna"), ("model", "ben"), ("anna", "ben")}
    first, second = (run.nodes == 1).sum(), (run.nodes == 2).sum()
    (case,) = found["model", "anna"].cases
    assert case.dice == pytest.approx(2 * first / (2 * first + second))
    assert case.nodes == (2, 1, 1)
    assert found["model", "anna"].detection.value == pytest.approx(2 / 3)
    assert case.counts == (1, 1)
    assert found["model", "ben"].dice.value == 1
    done = CliRunner().invoke(app, ["review", "agreement", str(run.out)])
    assert done.exit_code == 0, done.output
    rows = pd.read_csv(run.out / "review" / "agreement" / "tables" / "cases.csv")
    assert len(rows) == 3
    page = (run.out / "review" / "agreement" / "agreement.html").read_text("utf-8")
    assert "Agreement of readers" in page
    assert "all counts are the same" in page
