"""The interval of a share."""

from __future__ import annotations

import math

from scipy import stats

from aiene.benchmark.estimate import Estimate, missing
from aiene.errors import UsageError


def wilson(
    successes: int, n: int, *, confidence: float = 0.95, nothing: str = "nothing to count"
) -> Estimate:
    """A share with Wilson's score interval (J. Am. Stat. Assoc. 22, 1927).

    It takes the n as independent.

    Parameters
    ----------
    successes : 0 to n.
    nothing : the reason that is given where n is 0.

    Raises
    ------
    UsageError : counts that cannot be.
    """
    if not 0 <= successes <= n:
        raise UsageError(f"{successes} of {n} is no share.")
    if n == 0:
        return missing(nothing)
    share = successes / n
    z = float(stats.norm.ppf((1 + confidence) / 2))
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, middle - reach)
    high = 1.0 if successes == n else min(1.0, middle + reach)
    return Estimate(share, low, high, n=n)
