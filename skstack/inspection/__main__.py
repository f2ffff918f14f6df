"""``python -m skstack.inspection ESTIMATOR DATA.csv TARGET``: a leakage report for a CI job."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from pathlib import Path

import numpy as np

_DESCRIPTION = """\
Print the leakage report of an estimator and a table. The exit code is 1 if it finds a leak (with
--strict, also if it suspects one), 2 if the arguments are wrong or a fit fails, and 0 otherwise.
"""


def main(arguments=None):
    """Print a report; return the exit code."""
    parser = argparse.ArgumentParser("python -m skstack.inspection", description=_DESCRIPTION)
    parser.add_argument(
        "estimator",
        metavar="PICKLE_OR_MODULE:NAME",
        help="a file of pickle, joblib or skstack.save (a pickle runs code: only load your own), "
        "or the name of an estimator, or of a function that returns one, in a module",
    )
    parser.add_argument("data", metavar="DATA.csv", help="a table with a header (.parquet, too)")
    parser.add_argument("target", metavar="TARGET", help="the column to predict")
    parser.add_argument("--cv", type=int, help="number of outer folds (5)")
    parser.add_argument("--groups", metavar="COLUMN", help="group labels, not a feature")
    parser.add_argument("--time", metavar="COLUMN", help="times of rows; outer folds are ordered")
    parser.add_argument("--drop", metavar="COLUMN", nargs="*", default=[], help="not features")
    parser.add_argument("--html", metavar="FILE", help="also write the report as HTML")
    parser.add_argument("--strict", action="store_true", help="return 1 for a suspect, too")
    options = parser.parse_args(arguments)

    try:
        return _report(options)
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))
    except Exception:  # Python would exit with 1, as for a leak
        traceback.print_exc()
        return 2


def _report(options):
    """Print and write the report; return 1 if it finds a leak."""
    import pandas as pd
    from sklearn.model_selection import GroupKFold, TimeSeriesSplit

    from skstack.inspection import leakage_report
    from skstack.inspection._leakage import ranks_of_times

    if options.cv is not None and options.cv < 2:
        raise ValueError(f"--cv {options.cv}: expected at least 2 folds")
    if options.html is not None and not Path(options.html).absolute().parent.is_dir():
        raise ValueError(f"--html {options.html}: there is no such folder")
    estimator = _estimator(options.estimator)
    is_parquet = Path(options.data).suffix == ".parquet"
    frame = (pd.read_parquet if is_parquet else pd.read_csv)(options.data)
    named = [options.target, options.groups, options.time, *options.drop]
    missing = [name for name in named if name is not None and name not in frame]
    if missing:
        raise ValueError(f"columns {missing} are not in {options.data}: {list(frame.columns)}")
    if options.time is not None:
        order = np.argsort(ranks_of_times(frame[options.time]), kind="stable")
        frame = frame.iloc[order].reset_index(drop=True)
    special = {name for name in (options.groups, options.time) if name is not None}
    X = frame.drop(columns=[options.target, *special, *options.drop])
    cv = options.cv
    if options.time is not None:
        cv = TimeSeriesSplit(cv or 5)
    elif options.groups is not None:
        cv = GroupKFold(cv or min(5, frame[options.groups].nunique()))
    report = leakage_report(
        estimator,
        X,
        frame[options.target].to_numpy(),
        cv=cv,
        groups=None if options.groups is None else frame[options.groups].to_numpy(),
        time=None if options.time is None else frame[options.time].to_numpy(),
        verbose=1,
    )
    print(report)
    if options.html:
        Path(options.html).write_text(report._repr_html_(), encoding="utf-8")
    return int(bool(report.leaks) or (options.strict and bool(report.suspects)))


def _estimator(name):
    """The estimator in a file, or of a module."""
    if Path(name).exists():
        if Path(name).suffix == ".skstack":
            import skstack

            return skstack.load(name)
        import joblib

        sys.path.insert(0, os.getcwd())  # a pickle may name classes of a module here
        try:
            return joblib.load(name)
        except Exception as error:  # any, if the file is no pickle
            raise ValueError(f"{name} cannot be read as a pickle: {error!r}") from error
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ValueError(f"{name!r} is neither a file nor MODULE:NAME")
    sys.path.insert(0, os.getcwd())
    value = importlib.import_module(module)
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise ValueError(f"{name!r}: there is no {part!r} in {module!r}")
        value = getattr(value, part)
    return value if hasattr(value, "fit") and not isinstance(value, type) else value()


if __name__ == "__main__":
    sys.exit(main())
