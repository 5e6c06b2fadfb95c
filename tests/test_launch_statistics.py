"""How often the estimators of `percentiles` report equal models as different, and how often they find a slow-down.

Both are tested with simulated noise of real machines: independent calls, calls that are like their neighbours, a clock
with two speeds, and launches with a lasting difference of 1 %.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mlflow_compress.percentiles import error_of_launches, launch_interval, launch_mean, launch_spread, ratio_error

pytestmark = pytest.mark.full  # simulations take seconds

Noise = Callable[[np.random.Generator, int, int], np.ndarray]
_CALLS = 200  # of a launch
_TRIALS = 400


def _independent(generator: np.random.Generator, launches: int, calls: int) -> np.ndarray:
    return generator.normal(0, 0.05, (launches, calls))


def _like_neighbours(generator: np.random.Generator, launches: int, calls: int) -> np.ndarray:
    """An autoregressive process: each call has 0.98 of its neighbour's deviation, plus noise."""
    noise = generator.normal(0, 0.05, (launches, calls))
    noise[:, 1:] *= (1 - 0.98**2) ** 0.5
    for call in range(1, calls):
        noise[:, call] += 0.98 * noise[:, call - 1]
    return noise


def _two_clocks(generator: np.random.Generator, launches: int, calls: int) -> np.ndarray:
    """A clock that may change by 10 % every 100 calls."""
    slow = generator.integers(0, 2, (launches, calls // 100 + 1)).repeat(100, axis=1)
    begin = generator.integers(0, 100)
    return 0.1 * slow[:, begin : begin + calls] + generator.normal(0, 0.02, (launches, calls))


def _launches_differ(generator: np.random.Generator, launches: int, calls: int) -> np.ndarray:
    return generator.normal(0, 0.01, (launches, 1)) + generator.normal(0, 0.02, (launches, calls))


_NOISES: dict[str, Noise] = {
    "independent": _independent,
    "like neighbours": _like_neighbours,
    "two clocks": _two_clocks,
    "launches differ": _launches_differ,
}


def _medians(generator: np.random.Generator, noise: Noise, launches: int, slower: float) -> list[float]:
    return [float(median) for median in np.exp(np.median(noise(generator, launches, _CALLS), axis=1)) * slower]


def _differs_apart(own: list[float], base: list[float]) -> bool:
    """Compare two groups of launches, measured separately."""
    errors = [error_of_launches(launch_spread(medians) or 0.0, len(medians)) for medians in (own, base)]
    low, high = ratio_error(*errors).interval(launch_mean(own) / launch_mean(base))
    return not low <= 1 <= high


def _differs_in_turns(own: list[float], base: list[float]) -> bool:
    """Compare pairs of launches."""
    bounds = launch_interval([a / b for a, b in zip(own, base, strict=True)])
    assert bounds is not None
    return not bounds[0] <= 1 <= bounds[1]


def _share(noise: Noise, launches: int, slower: float, differs: Callable[[list[float], list[float]], bool]) -> float:
    generator = np.random.default_rng(launches)
    differences = [
        differs(_medians(generator, noise, launches, slower), _medians(generator, noise, launches, 1.0))
        for _ in range(_TRIALS)
    ]
    return sum(differences) / _TRIALS


@pytest.mark.parametrize("differs", [_differs_apart, _differs_in_turns])
@pytest.mark.parametrize("launches", [3, 5])
@pytest.mark.parametrize("noise", _NOISES)
def test_equal_models_are_seldom_called_different(
    noise: str, launches: int, differs: Callable[[list[float], list[float]], bool]
) -> None:
    assert _share(_NOISES[noise], launches, 1.0, differs) <= 0.08


@pytest.mark.parametrize(
    ("noise", "launches", "least"),
    [("independent", 3, 0.95), ("independent", 5, 0.99), ("launches differ", 3, 0.6), ("launches differ", 5, 0.95)],
)
@pytest.mark.parametrize("differs", [_differs_apart, _differs_in_turns])
def test_a_model_that_is_5_percent_slower_is_seen(
    noise: str, launches: int, least: float, differs: Callable[[list[float], list[float]], bool]
) -> None:
    assert _share(_NOISES[noise], launches, 1.05, differs) >= least
