"""What a comparison's runs say: means with intervals, and paired differences."""

import statistics
from typing import Any, NamedTuple

import numpy as np
import scipy.stats


class Interval(NamedTuple):
    """A mean with half the width of its 95 % confidence interval.

    None for the width of a single value, and for both where a run diverged.
    """

    mean: float | None
    half: float | None


def summarise(runs: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """A row for each size and arm: mean and 95 % interval, and the difference to the first arm.

    The difference is paired: of the runs with the same seed.

    Args:
        runs: each with `arm`, `images_per_class`, `seed`, `parameters`, `weights_bytes`,
            `seconds_per_epoch` and `test`; the runs of the first arm come first.
        key: of the metric in `test`.

    Example:
        >>> from keras_shared.comparing.statistics import summarise
        >>> runs = [
        ...     {"arm": arm, "images_per_class": 0, "seed": seed, "parameters": 9,
        ...      "weights_bytes": 36, "seconds_per_epoch": 1.0, "test": {"error": error}}
        ...     for arm, errors in (("a", (2, 4, 6)), ("b", (3, 5, 7)))
        ...     for seed, error in enumerate(errors)
        ... ]
        >>> rows = summarise(runs, "error")
        >>> rows[1]["metric"]["mean"], rows[1]["difference"], rows[1]["within_noise"]
        (5.0, {'mean': 1.0, 'half': 0.0}, False)
    """
    rows = []
    for size in dict.fromkeys(run["images_per_class"] for run in runs):
        of_size = [run for run in runs if run["images_per_class"] == size]
        first = {r["seed"]: r["test"][key] for r in of_size if r["arm"] == of_size[0]["arm"]}
        for arm in dict.fromkeys(run["arm"] for run in of_size):
            own = [run for run in of_size if run["arm"] == arm]
            row = {
                "images_per_class": size,
                "arm": arm,
                "parameters": own[0]["parameters"],
                "weights_bytes": own[0]["weights_bytes"],
                "seconds_per_epoch": round(
                    statistics.median(run["seconds_per_epoch"] for run in own), 3
                ),
                "metric": interval([run["test"][key] for run in own])._asdict(),
            }
            if arm != of_size[0]["arm"]:
                pairs = [(run["test"][key], first[run["seed"]]) for run in own]
                paired = interval([None if None in pair else pair[0] - pair[1] for pair in pairs])
                row["difference"] = paired._asdict()
                if paired.mean is not None and paired.half is not None:
                    row["within_noise"] = abs(paired.mean) <= paired.half
            rows.append(row)
    return rows


def interval(values: list[float | None]) -> Interval:
    """Mean and 95 % confidence interval by Student's t, of values from independent seeds.

    None stands for a run that diverged.

    Example:
        >>> from keras_shared.comparing.statistics import interval
        >>> interval([1.0, 2.0, 3.0])
        Interval(mean=2.0, half=2.4841)
    """
    if None in values:
        return Interval(None, None)
    known = np.array(values, "float64")
    mean, n = round(float(known.mean()), 4), len(known)
    if n < 2:
        return Interval(mean, None)
    t = float(scipy.stats.t.ppf(0.975, n - 1))
    return Interval(mean, round(t * float(known.std(ddof=1)) / n**0.5, 4))
