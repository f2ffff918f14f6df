"""`leakage_report` against one `cross_validate` of the same estimator and folds."""

import sys
import warnings
from pathlib import Path

from harness import compared, scenario, turns
from sklearn.base import clone
from sklearn.model_selection import cross_validate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


@scenario("leakage-report")
def reports(quick):
    """Every planted leak of the tests and its clean twin: time of the report, and its verdict."""
    from skstack.inspection import leakage_report
    from tests.inspection.test_leakage_report import CASES

    warnings.simplefilter("ignore")
    results = {}
    for name, (check, *twins) in list(CASES.items())[: 1 if quick else None]:
        for kind, (estimator, X, y, options) in zip(("planted", "clean"), twins, strict=True):
            results[f"{name}, {kind}"] = one_report(
                leakage_report, check, estimator, X, y, {"cv": 3, **options}, quick
            )
    return {"sizes": results}


def one_report(report, check, estimator, X, y, options, quick):
    fits = {"cv": options["cv"], "groups": options.get("groups")}
    seconds, returned = turns(
        {
            "cross_validate": lambda _: cross_validate(clone(estimator), X, y, **fits),
            "leakage_report": lambda _: report(estimator, X, y, **options),
        },
        rounds=1 if quick else 3,
    )
    found = returned["leakage_report"]
    return compared(seconds, check=check, leaks=found.leaks, suspects=found.suspects)
