"""Time of ``leakage_report`` against one ``cross_validate`` of the same estimator.

Run ``python benchmarks/leakage_report.py``; prints one line of JSON for each case. ``--quick``
takes the first case and one round, to show that it works.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from pathlib import Path

from sklearn.base import clone
from sklearn.model_selection import cross_validate

from skstack.inspection import leakage_report

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.inspection.test_leakage_report import CASES

ROUNDS = 3  # the median of which counts


def seconds(action):
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    warnings.simplefilter("ignore")
    for name, (check, *twins) in list(CASES.items())[: 1 if quick else None]:
        for kind, (estimator, X, y, options) in zip(("planted", "clean"), twins, strict=True):
            options = {"cv": 3, **options}
            fits = {"cv": options["cv"], "groups": options.get("groups")}
            report = leakage_report(estimator, X, y, **options)  # also warms programs up
            times = [
                (
                    seconds(lambda: cross_validate(clone(estimator), X, y, **fits)),  # noqa: B023
                    seconds(lambda: leakage_report(estimator, X, y, **options)),  # noqa: B023
                )
                for _ in range(1 if quick else ROUNDS)
            ]
            once, whole = (statistics.median(side) for side in zip(*times, strict=True))
            print(
                json.dumps(
                    {
                        "case": name,
                        "kind": kind,
                        "check": check,
                        "leaks": report.leaks,
                        "suspects": report.suspects,
                        "cross_validate_s": round(once, 4),
                        "leakage_report_s": round(whole, 4),
                        "ratio": round(whole / once, 1),
                    }
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
