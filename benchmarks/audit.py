"""How many planted leaks `leakage_report` finds, and how many clean cases it suspects.

``make audit-benchmark`` runs all cases; ARGS="--only WORD" those whose name contains the word,
ARGS="--output FILE.json" also writes the results. A leak counts as caught if the report names a
leak; a clean case is a false alarm if the report names a leak or a suspect.
"""

import argparse
import contextlib
import json
import os
import sys
import time
import traceback
import warnings
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def cases():
    """(name, whether a leak was planted, function that returns the case) of all cases."""
    from audit_cases import CLEAN, PLANTED

    for name, make in PLANTED.items():
        yield name, True, lambda make=make: make()[0]
        yield name, False, lambda make=make: make()[1]
    for name, case in CLEAN.items():
        yield f"clean, {name}", False, lambda case=case: case


def judge(make):
    """Verdicts of one report, its time, and how often `cross_validate` fits into it."""
    from sklearn.base import clone
    from sklearn.model_selection import cross_validate

    from skstack.inspection import leakage_report

    estimator, X, y, options = make()
    options = {"cv": 3, **options}
    start = time.perf_counter()
    try:
        report = leakage_report(estimator, X, y, **options)
    except Exception as error:
        return {"crash": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    with contextlib.suppress(Exception):  # parts that were fitted before cannot be cloned
        cross_validate(clone(estimator), X, y, cv=options["cv"], groups=options.get("groups"))
    once = time.perf_counter() - start
    alarms = {f.check: f.evidence for f in report.findings if f.verdict in ("leak", "suspect")}
    return {
        "leaks": report.leaks,
        "suspects": report.suspects,
        "evidence": alarms,
        "seconds": round(seconds, 3),
        "cross_validate": round(once, 3),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="names that contain this")
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    results, kinds = [], defaultdict(lambda: [0, 0, 0, 0])
    for name, leak, make in cases():
        if arguments.only not in name:
            continue
        result = {"name": name, "planted": leak, **judge(make)}
        results.append(result)
        counts = kinds[name.partition(":")[0]]
        alarm = bool(result.get("leaks")) or (not leak and bool(result.get("suspects")))
        counts[0 if leak else 2] += 1
        counts[1 if leak else 3] += alarm
        if "crash" in result:
            print(f"CRASH       {name}: {result['crash']}", flush=True)
        elif leak and not alarm:
            print(f"missed      {name} {result['evidence'] or ''}", flush=True)
        elif not leak and alarm:
            print(f"false alarm {name}: {result['evidence']}", flush=True)
    print(f"\n{'kind':40} {'planted':>8} {'caught':>7} {'clean':>6} {'false alarms':>13}")
    kinds["all"] = [sum(column) for column in zip(*kinds.values(), strict=True)]
    for kind, (planted, caught, clean, alarms) in kinds.items():
        print(f"{kind:40} {planted:8} {caught:7} {clean:6} {alarms:13}")
    timed = [r for r in results if "seconds" in r]
    ratio = sum(r["seconds"] for r in timed) / max(sum(r["cross_validate"] for r in timed), 1e-9)
    print(f"{ratio:.1f} times as long as cross_validate, over all cases")
    if arguments.output:
        tables = {"kinds": dict(kinds), "ratio": ratio, "cases": results}
        arguments.output.write_text(json.dumps(tables, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
