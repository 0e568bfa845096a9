"""Shares of two samples: an interval, and whether one is larger than chance explains."""

import math

from mrigan.evaluation.sampling import Estimate

_Z = 1.96  # of 95 %, two-sided


def share_of(count: int, total: int) -> Estimate:
    """``count`` of ``total`` as a share, with Wilson's interval (1927); ``total`` from 1."""
    share = count / total
    squared = _Z**2 / total
    middle = (share + squared / 2) / (1 + squared)
    reach = _Z / (1 + squared) * math.sqrt(share * (1 - share) / total + squared / (4 * total))
    return Estimate(
        share, min(share, max(0.0, middle - reach)), max(share, min(1.0, middle + reach))
    )


def p_of_more(count: int, total: int, others: int, of_others: int) -> float:
    """Fisher's exact test, one-sided: how likely so many of ``total`` are by chance.

    Args:
        count: Of ``total`` that have a property.
        total: Of one sample.
        others: Of ``of_others`` that have it.
        of_others: Of the other sample.

    Returns:
        The probability of ``count`` or more if both samples are of one population.
    """
    both, marked = total + of_others, count + others
    every = _log_choose(both, marked)
    most = min(total, marked)
    terms = [
        math.exp(_log_choose(total, k) + _log_choose(of_others, marked - k) - every)
        for k in range(max(count, marked - of_others), most + 1)
    ]
    return min(1.0, math.fsum(terms))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
