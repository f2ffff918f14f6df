"""A search on two workers against the same in one process, and the bytes that workers receive."""

import contextlib
import importlib.util
import json
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from contestants import table
from harness import compared, fresh, scenario
from searches import candidates, folds, sizes
from sklearn.model_selection import GridSearchCV

# One thread for each worker, so that what is compared has the same threads for each fit.
ONE_THREAD = dict.fromkeys(
    ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
    "1",
)
NEEDS = {"dask": "distributed", "ray": "ray"}
KINDS = {
    "one process": "serial",
    "two threads": "threading",
    "loky, two workers": "loky",
    "dask, two workers": "dask",
    "ray, two workers": "ray",
}
RUN = "import sys, clusters; clusters.timed_searches(*sys.argv[1:])"


@scenario(
    "search-on-two-workers",
    target={f"loky, two workers{when}": 0.8 for when in ("", ", again")},
)
def two_workers(quick):
    """The 60 fits of grid-search-10000x30 on two workers with one thread each, and in one process.

    The first search of a process compiles; the second, "again", does not. Starting workers and
    importing TensorFlow in them is left out and reported as `start`. Efficiency is the time of one
    process divided by that of two workers; at least 1.6 is the target, for loky 0.8. Two processes
    that share nothing show how much the machine has left for a second one.
    """
    rounds = 1 if quick else 3
    seconds, starts, equal = {}, {}, {}
    kinds = {
        label: kind
        for label, kind in KINDS.items()
        if kind not in NEEDS or importlib.util.find_spec(NEEDS[kind])
    }
    expected = None
    for turn in range(rounds):
        for label, kind in kinds.items():
            _, printed = fresh(RUN, kind, *sizes(quick), **ONE_THREAD)
            found = json.loads(printed.splitlines()[-1])
            print(f"  {turn + 1}/{rounds} {label}: {found['seconds']}", file=sys.stderr, flush=True)
            expected = expected or found["scores"]
            equal[label] = found["scores"] == expected and equal.get(label, True)
            starts.setdefault(label, []).append(found["start"])
            for when, elapsed in zip(("", ", again"), found["seconds"], strict=True):
                seconds.setdefault(f"{label}{when}", []).append(elapsed)
    result = compared(seconds)
    median = {name: each["median_s"] for name, each in result["contestants"].items()}
    efficiency = {
        f"{label}{when}": round(median[f"one process{when}"] / median[f"{label}{when}"], 3)
        for label in kinds
        for when in ("", ", again")
    }
    figures = {"efficiency": efficiency, "start": starts, "equal": equal}
    return {**result, "figures": {**figures, "efficiency of two busy processes": two_busy()}}


BUSY = """
import time
import numpy as np
a = np.random.default_rng(0).standard_normal((600, 600))
start = time.perf_counter()
for _ in range(100):
    a @ a
print(time.perf_counter() - start)
"""


def two_busy():
    """What this machine gives two processes that share nothing: times of one by those of two."""
    with ThreadPoolExecutor(2) as pool:

        def seconds(n):
            done = pool.map(lambda _: float(fresh(BUSY, **ONE_THREAD)[1]), range(n))
            return max(done)

        found = [2 * seconds(1) / seconds(2) for _ in range(3)]
    return round(statistics.median(found), 2)


def timed_searches(kind, n, n_folds, epochs):
    """Two searches one after the other; prints start of the workers, seconds, and all scores."""
    n, n_folds, epochs = map(int, (n, n_folds, epochs))
    X, y = table(n, 30)
    pipeline, grid = candidates("ours", epochs)
    pipeline.fit(X[:200], y[:200])  # imports are no part of a search
    seconds, scores = [], []
    start = time.perf_counter()
    with workers(kind, X[:200], y[:200], pipeline):
        begun = time.perf_counter() - start
        for _ in range(2):
            start = time.perf_counter()
            found = GridSearchCV(
                pipeline, grid, cv=folds(n_folds), scoring="roc_auc", refit=False,
                n_jobs=None if kind == "serial" else 2,
            ).fit(X, y)  # fmt: skip
            seconds.append(time.perf_counter() - start)
            scores.append(found.cv_results_["mean_test_score"].tolist())
    print(json.dumps({"start": begun, "seconds": seconds, "scores": scores}))


@contextlib.contextmanager
def workers(kind, X, y, warm_up):
    """Context with two workers of a kind, in which TensorFlow is imported."""
    from joblib import Parallel, delayed, parallel_config

    with contextlib.ExitStack() as stack:
        if kind == "dask":
            from distributed import Client, LocalCluster

            settings = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
            client = stack.enter_context(Client(stack.enter_context(LocalCluster(**settings))))
            stack.enter_context(parallel_config("dask", client=client))
            client.run(warm_up.fit, X, y)
        elif kind == "ray":
            import ray
            from ray.util.joblib import register_ray

            ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
            stack.callback(ray.shutdown)
            register_ray()
            stack.enter_context(parallel_config("ray"))
        elif kind != "serial":
            stack.enter_context(parallel_config(kind))
            Parallel(2)(delayed(warm_up.fit)(X, y) for _ in range(8))
        yield


@scenario("bytes-to-workers")
def bytes_to_workers(quick):
    """What two dask workers receive, in units of the table, for 12 candidates x 5 folds.

    Fits that take no time, of 100,000 x 30 float32 columns (12 MB); counted by the loopback device,
    which sees all that this machine sends to itself.
    """
    if not importlib.util.find_spec("distributed"):
        return {"figures": {"skipped": "dask is not installed"}}
    from distributed import Client, LocalCluster
    from joblib import parallel_config
    from sklearn.naive_bayes import GaussianNB

    from skstack import KerasFeatureTransformer

    X, y = table(10_000 if quick else 100_000, 30)
    split = list(folds(5).split(X, y))
    rows = [numbers for pair in split for numbers in pair]
    grid = {"var_smoothing": [10.0**-power for power in range(12)]}

    settings = {"refit": False, "n_jobs": -1}
    plain = GridSearchCV(GaussianNB(), grid, cv=folds(5), **settings)
    # A search is sent with each task, for callbacks; this one holds row numbers.
    listed = GridSearchCV(GaussianNB(), grid, cv=split, **settings)

    def searches(search, n=3):
        return lambda: [search.fit(X, y) for _ in range(n)]

    def cross_fit():
        KerasFeatureTransformer(GaussianNB(), cv=5, refit=False).fit(X, y)

    found = {}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        for label, function, scatter in (
            ("one search", searches(plain, 1), None),
            ("three searches", searches(plain), None),
            ("three searches, scatter=[X, y]", searches(plain), [X, y]),
            ("three searches, folds as a list", searches(listed), [X, y]),
            ("the same, scatter=[X, y, *rows]", searches(listed), [X, y, *rows]),
            ("the same, scatter=[X, y, *rows, search]", searches(listed), [X, y, *rows, listed]),
            ("cross-fit of 5 folds", cross_fit, None),
        ):
            before = _received()
            with parallel_config("dask", client=client, scatter=scatter):
                function()
            found[label] = round((_received() - before) / X.nbytes, 2)
    return {"figures": {"MB of the table": X.nbytes / 1e6, "received, in tables": found}}


def _received():
    """Bytes that this machine has received from itself (Linux)."""
    with open("/proc/net/dev", encoding="ascii") as file:
        for line in file:
            name, _, numbers = line.partition(":")
            if name.strip() == "lo":
                return int(numbers.split()[0])
    raise RuntimeError("no loopback device")
