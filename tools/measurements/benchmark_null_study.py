"""How often the benchmark's tests find a difference where there is none.

    OMP_NUM_THREADS=1 python -m tools.measurements.benchmark_null_study [--nulls 2000] [--seed 0] [--start 0]

Simulates comparisons of models that are equally good, and counts how often each test says otherwise at the
level of 0.05 (or an interval of 95 % leaves out the truth). Prints a table and writes
`results/benchmark_null_study.json`, where each rate stands with its Wilson interval and with the
2.5 % to 97.5 % range in which the rate of an exact test would lie; the findings of the first 200 stand
beside. Every null has its own random numbers, so that pieces (`--nulls 500`, then `--nulls 500 --start 500`)
give what one call gives. A null of all studies takes 0.1 processor seconds.

- `paired`: two models on 30 patients (and on 8), Dice of a patient's own difficulty and a model's own luck;
  a tenth of the cases fails altogether (Dice 0), so there are ties.
- `family`: a reference and four models on 30 patients; an error is any false finding in the family.
- `nodes`: two classifiers of equal skill on 120 nodes of 120 patients.
- `clustered nodes`: the same on 120 nodes of 30 patients, where a classifier errs alike on all nodes of a
  patient. DeLong's test takes nodes as independent, and shows here why the bootstrap over patients exists.
- `detection`: two detectors of equal skill, by node sensitivity and free-response score.
- `difference as large as the margin`: a finding is a false "equal within the margin".
- `same model twice`: must never be a difference, in any of the tests.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import stats

from aiene.benchmark.metrics.classification import classification
from aiene.benchmark.metrics.nodes import froc_score
from aiene.benchmark.records import NodeInfo, NodeMatch, NodePair
from aiene.stats.bootstrap import cluster_bootstrap, mean
from aiene.stats.paired import (
    difference_test,
    equivalence,
    paired,
    sign_flip_p,
    subtracted,
)
from aiene.stats.ranking import critical_difference
from aiene.stats.records import Estimate
from aiene.stats.roc import auc, delong_test, wilson
from aiene.stats.tests import holm

ALPHA = 0.05
RESAMPLES = 1000
RESULTS = Path(__file__).parent / "results" / "benchmark_null_study.json"
Floats = npt.NDArray[np.float64]
Random = np.random.Generator


def _dice(random: Random, patients: int, models: int) -> Floats:
    """Dice (patients, models) of models that are equally good."""
    difficulty = random.normal(1.2, 0.8, (patients, 1))
    dice = 1 / (1 + np.exp(-(difficulty + random.normal(0, 0.5, (patients, models)))))
    return np.where(random.random(dice.shape) < 0.1, 0.0, dice)


def _scores(random: Random, nodes: int, patients: int) -> tuple[Floats, Floats, Floats, list[str]]:
    """Labels, two scores of equal skill, and the patient of each node."""
    patient = np.arange(nodes) % patients
    alone = patients == nodes
    risk = random.normal(size=patients)[patient] * (0 if alone else 1.5)
    labels = (random.random(nodes) < 1 / (1 + np.exp(-risk + 0.5))).astype(float)
    shared = random.normal(size=nodes)
    own = [random.normal(size=patients)[patient] * (0 if alone else 1.2) for _ in range(2)]
    first, second = (1.2 * labels + 0.6 * shared + o + 0.8 * random.normal(size=nodes) for o in own)
    return labels, first, second, [f"P{p}" for p in patient]


def _leaves_out(estimate: Estimate, truth: float = 0.0) -> bool:
    if estimate.low is None or estimate.high is None:
        return False
    return not estimate.low <= truth <= estimate.high


def _under(p: float | None) -> bool:
    return p is not None and p < ALPHA


def paired_findings(random: Random, seed: int, patients: int) -> dict[str, bool]:
    """Two models on the same patients."""
    dice = _dice(random, patients, 2)
    found = paired(dice[:, 0].tolist(), dice[:, 1].tolist(), resamples=RESAMPLES, seed=seed)
    return {
        "Wilcoxon": _under(found.wilcoxon_p),
        "sign-flip permutation": _under(found.permutation_p),
        "interval of the mean difference": _leaves_out(found.mean_difference),
        "interval of the superiority": _leaves_out(found.superiority, 0.5),
    }


def family_findings(random: Random, seed: int) -> dict[str, bool]:
    """Four models against a reference, and all five together."""
    scores = dict(zip("abcde", _dice(random, 30, 5).T.tolist(), strict=True))
    found = [paired(scores[m], scores["a"], resamples=2, seed=seed) for m in "bcde"]
    corrected = holm([one.permutation_p for one in found])
    together = critical_difference(scores)
    return {
        "any p without correction": any(_under(one.permutation_p) for one in found),
        "any verdict with Holm": any(_under(p) for p in corrected),
        "Friedman": _under(together.friedman_p),
        "any pair by Nemenyi": any(_under(p) for row in together.nemenyi_p for p in row),
    }


def _area_difference(
    labels: Floats, first: Floats, second: Floats, patients: list[str], seed: int
) -> Estimate:
    """Area of the first score less that of the second, with its interval over patients."""
    apart = subtracted(auc(labels, first), auc(labels, second))
    n = labels.size
    return cluster_bootstrap(apart, n, patients, resamples=RESAMPLES, seed=seed, of_difference=True)


def node_findings(random: Random, seed: int, patients: int) -> dict[str, bool]:
    """Two classifiers on the same nodes."""
    labels, first, second, names = _scores(random, 120, patients)
    by_patient = _area_difference(labels, first, second, names, seed)
    return {
        "DeLong": _under(delong_test(labels, first, second).p),
        "bootstrap over patients": _leaves_out(by_patient),
    }


def detection_findings(random: Random, seed: int) -> dict[str, bool]:
    """Two detectors of equal skill on 30 patients with up to four nodes and false ones, with confidences."""
    truth = random.integers(0, 5, 30)
    hard = random.normal(0.5, 0.8, 30)
    cases = [
        [_detected(random, int(n), float(h)) for n, h in zip(truth, hard, strict=True)] for _ in range(2)
    ]
    one, two = ([float(len(case.pairs)) for case in mine] for mine in cases)
    apart = np.array(one) - np.array(two)
    scores = subtracted(froc_score(cases[0]), froc_score(cases[1]))
    test = difference_test(scores, 30, None, resamples=RESAMPLES, seed=seed)
    return {
        "node sensitivity, permutation": sign_flip_p(apart, seed=seed) < ALPHA,
        "free-response score, bootstrap": _under(test.p),
    }


def _detected(random: Random, nodes: int, ease: float) -> NodeMatch:
    found = [
        n for n in range(1, nodes + 1) if random.random() < 1 / (1 + np.exp(-ease - random.normal(0, 0.5)))
    ]
    false = list(range(50, 50 + int(random.poisson(0.7))))
    sure = {n: float(random.normal(1.0 if n < 50 else 0.0)) for n in (*found, *false)}
    pairs = tuple(NodePair(n, n, 0.7, 0.8) for n in found)
    infos = tuple(NodeInfo(n, 1.0, 9.0, "<10 mm") for n in range(1, nodes + 1))
    predicted = tuple(NodeInfo(n, 1.0, 9.0, "<10 mm", c) for n, c in sure.items())
    missed = tuple(n for n in range(1, nodes + 1) if n not in found)
    return NodeMatch(infos, predicted, pairs, pairs, missed, tuple(false), (), (), 0.3)


def equivalence_findings(random: Random, seed: int) -> dict[str, bool]:
    """Two models whose true difference is exactly the margin: a finding is a false "equal"."""
    difference = random.normal(0.05, 0.08, 30)
    found = equivalence(mean(difference), 30, None, 0.05, resamples=RESAMPLES, seed=seed)
    return {"equal within the margin": bool(found.equivalent)}


def coverage_findings(random: Random, seed: int) -> dict[str, bool]:
    """One classifier whose area is known: the normal model with means 1.2 apart."""
    labels = (random.random(120) < 0.4).astype(float)
    scores = 1.2 * labels + random.normal(size=120)
    truth = float(stats.norm.cdf(1.2 / np.sqrt(2)))
    found = classification(labels, 1 / (1 + np.exp(-scores)), resamples=RESAMPLES, seed=seed)
    return {
        "DeLong's interval": _leaves_out(found.auc, truth),
        "interval over patients": _leaves_out(found.auc_clustered, truth),
    }


def calibration_findings(random: Random, seed: int) -> dict[str, bool]:
    """Probabilities that are right."""
    probabilities = 1 / (1 + np.exp(-random.normal(-0.3, 1.2, 150)))
    labels = (random.random(150) < probabilities).astype(float)
    found = classification(labels, probabilities, resamples=2, seed=seed).calibration
    return {"slope": _leaves_out(found.slope, 1.0), "intercept": _leaves_out(found.intercept, 0.0)}


def same_model_findings(random: Random, seed: int) -> dict[str, bool]:
    """One model under two names."""
    dice = _dice(random, 30, 1)[:, 0].tolist()
    labels, first, _, names = _scores(random, 120, 30)
    found = paired(dice, dice, resamples=RESAMPLES, seed=seed)
    together = critical_difference({"a": dice, "b": dice, "c": dice})
    return {
        "verdict": _under(found.permutation_p),
        "Wilcoxon": _under(found.wilcoxon_p),
        "interval of the mean difference": _leaves_out(found.mean_difference),
        "Friedman": _under(together.friedman_p),
        "DeLong": _under(delong_test(labels, first, first).p),
        "bootstrap over patients": _leaves_out(_area_difference(labels, first, first, names, seed)),
    }


STUDIES: dict[str, Callable[[Random, int], dict[str, bool]]] = {
    "paired, 30 patients": lambda random, seed: paired_findings(random, seed, 30),
    "paired, 8 patients": lambda random, seed: paired_findings(random, seed, 8),
    "family of five models": family_findings,
    "nodes, one per patient": lambda random, seed: node_findings(random, seed, 120),
    "clustered nodes, 4 per patient": lambda random, seed: node_findings(random, seed, 30),
    "coverage of an area": coverage_findings,
    "calibration": calibration_findings,
    "same model twice": same_model_findings,
    "detection, 30 patients": detection_findings,
    "difference as large as the margin": equivalence_findings,
}


def main() -> None:
    """Run every study, or a further piece of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nulls", type=int, default=2000)
    parser.add_argument("--start", type=int, default=0, help="number of the first; over 0 adds to the file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(STUDIES), help="these alone; nothing is written")
    words = parser.parse_args()
    before = _before(words.start, words.seed)
    found: dict[tuple[str, str], Counter[str]] = {}
    for place, (study, findings) in enumerate(STUDIES.items()):
        if words.only and study not in words.only:
            continue
        start = time.process_time()
        for null in range(words.start, words.start + words.nulls):
            random = np.random.default_rng([words.seed, place, null])
            for test, hit in findings(random, null).items():
                mine = found.setdefault((study, test), Counter(before.get((study, test), {})))
                mine["findings"] += hit
                mine["findings_of_first_200"] += hit and null < 200
        print(f"    ({study}: {time.process_time() - start:.0f} processor seconds)", flush=True)
    nulls = words.start + words.nulls
    low, high = (float(v) / nulls for v in stats.binom.ppf([0.025, 0.975], nulls, ALPHA))
    content = {
        "nulls": nulls,
        "seed": words.seed,
        "level": ALPHA,
        "range_of_an_exact_test": [low, high],
        "versions": {name: version(name) for name in ("numpy", "scipy")},
        "rows": [_row(study, test, counts, nulls) for (study, test), counts in found.items()],
    }
    if not words.only:
        RESULTS.write_text(json.dumps(content, indent=1) + "\n")


def _before(start: int, seed: int) -> dict[tuple[str, str], dict[str, int]]:
    """The counts of the pieces before this one, which must end where it starts."""
    if start == 0:
        return {}
    content = json.loads(RESULTS.read_text())
    if (content["nulls"], content["seed"]) != (start, seed):
        raise SystemExit(
            f"{RESULTS.name} holds {content['nulls']} nulls of seed {content['seed']}; go on with those."
        )
    counted = ("findings", "findings_of_first_200")
    return {(row["study"], row["test"]): {name: row[name] for name in counted} for row in content["rows"]}


def _row(study: str, test: str, counts: Counter[str], nulls: int) -> dict[str, object]:
    share, rate = wilson(counts["findings"], nulls), counts["findings"] / nulls
    print(f"{study:34} {test:34} {rate:6.3f}", flush=True)
    return {
        "study": study,
        "test": test,
        "findings": counts["findings"],
        "rate": rate,
        "interval": [round(v, 4) for v in (share.low, share.high) if v is not None],
        "findings_of_first_200": counts["findings_of_first_200"],
    }


if __name__ == "__main__":
    main()
