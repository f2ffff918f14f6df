"""What the scenarios share: turns, medians, ratios, a fresh process, JSON."""

import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import time

from threadpoolctl import threadpool_limits

PACKAGES = (
    "skstack",
    "tensorflow",
    "keras",
    "scikit-learn",
    "scikeras",
    "imbalanced-learn",
    "numpy",
)
SCENARIOS = {}


def scenario(name, *, target=None):
    """Register a function of ``quick`` under a permanent name, with the least ratio it should show.

    `target` maps a contestant to how many times longer than skstack it should take, at least.
    """

    def register(function):
        SCENARIOS[name] = (function, target or {})
        return function

    return register


def one_thread(function):
    """Run with one BLAS and OpenMP thread: scikit-learn's best on small tables."""

    def wrapped(*arguments):
        with threadpool_limits(1):
            return function(*arguments)

    return wrapped


def turns(contestants, rounds, *, warm_up=1):
    """Time functions of the round's number in turn: A B C A B C. The first rounds do not count.

    Returns seconds by contestant, and what each returned last.
    """
    seconds = {name: [] for name in contestants}
    returned = {}
    for turn in range(rounds + warm_up):
        for name, function in contestants.items():
            start = time.perf_counter()
            returned[name] = function(turn)
            elapsed = time.perf_counter() - start
            if turn >= warm_up:
                seconds[name].append(elapsed)
            print(
                f"  {turn + 1}/{rounds + warm_up} {name}: {elapsed:.4f} s",
                file=sys.stderr,
                flush=True,
            )
    return seconds, returned


def compared(seconds, **more):
    """Medians, extremes, and how many times as long as ours, the first, the others took."""
    ours = next(iter(seconds))
    median = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "contestants": {
            name: {
                "median_s": median[name],
                "min_s": min(times),
                "max_s": max(times),
                "ratio": median[name] / median[ours],
                "seconds": times,
            }
            for name, times in seconds.items()
        },
        **more,
    }


def fresh(code, *arguments, **variables):
    """Run Python code in a new process; return its seconds and what it printed."""
    folder = os.path.dirname(os.path.abspath(__file__))
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **variables}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        check=True,
        cwd=folder,
        env=environment,
        text=True,
    )
    return time.perf_counter() - start, done.stdout


def described():
    """Machine and versions, without which no number means anything."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count())
    return {
        "machine": {
            "cores": len(cores),
            "processor": platform.machine(),
            "system": platform.system(),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
    }
