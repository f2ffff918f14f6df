"""Tables on disk: throughput, memory, growth, and a run that is resumed."""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from harness import compared, fresh, scenario, turns

COLUMNS, BATCH = 30, 1_024

STACK = """
import contextlib, json, os, sys, threading, time
import numpy as np
from skstack import KerasClassifier, KerasFeatureTransformer, StackedKerasClassifier
from skstack.networks import MLP
from skstack._training import train as training

path, target, limit, memory, ends_after = sys.argv[1:]
limit, ends_after = int(limit), int(ends_after)
limited = False
if limit:
    folder = f"/sys/fs/cgroup/skstack-{os.getpid()}"
    with contextlib.suppress(OSError):
        os.mkdir(folder)
        for name, value in (("memory.max", limit), ("cgroup.procs", os.getpid())):
            with open(f"{folder}/{name}", "w") as file:
                file.write(str(value))
        limited = True


def resident():
    with open("/proc/self/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    return sum(int(lines[name].split()[0]) for name in ("RssAnon", "RssShmem")) / 1024


def network():
    return KerasClassifier(MLP((64,)), epochs=1, batch_size=1_024, random_state=0)


def branch():
    return KerasFeatureTransformer(network(), memory=memory or None, random_state=0)


X, y = np.load(path, mmap_mode="r"), np.load(target)
import tensorflow

fits, train = [], training.train


def counted(*args, **settings):
    if len(fits) == ends_after:
        os._exit(0)
    fits.append(1)
    return train(*args, **settings)


training.train = counted
before = peak = resident()
ended = threading.Event()


def watch():
    global peak
    while not ended.wait(0.01):
        peak = max(peak, resident())


watcher = threading.Thread(target=watch)
watcher.start()
start = time.perf_counter()
half = list(range(X.shape[1] // 2))
stack = StackedKerasClassifier(
    [("one", branch()), ("two", branch(), half)], downstream=network(), blend=False, random_state=0
)
stack.fit(X, y)
seconds = time.perf_counter() - start
ended.set()
watcher.join()
print(json.dumps({
    "MB": peak - before, "s": seconds, "fits": len(fits), "limited": limited,
    "loss": stack.downstream_.loss_curve_[-1],
}))
"""


def stored(folder, n_rows):
    """Paths of a table of standard normal numbers and of its labels, 0 and 1."""
    X = np.lib.format.open_memmap(folder / "X.npy", "w+", np.float32, (n_rows, COLUMNS))
    y = np.empty(n_rows, dtype=np.int8)
    rng = np.random.default_rng(0)
    for start in range(0, n_rows, 2**18):
        part = X[start : start + 2**18]
        part[:] = rng.standard_normal(part.shape, dtype=np.float32)
        y[start : start + 2**18] = part[:, 0] + part[:, 1] ** 2 > 1
    X.flush()
    np.save(folder / "y.npy", y)
    return folder / "X.npy", folder / "y.npy"


@scenario("fit-from-disk", target={"from memory": 0.8})
def throughput(quick):
    """A fit of `MLP((64,))`, one epoch in batches of 1,024: two million rows x 30 of a file.

    Against the same fit of the same rows in memory; both give the same bits.
    """
    from skstack import KerasClassifier
    from skstack.networks import MLP

    n_rows = 1_200_000 if quick else 2_000_000
    with tempfile.TemporaryDirectory() as name:
        X, y = (np.load(path, mmap_mode="r") for path in stored(Path(name), n_rows))
        inside, labels = np.array(X), np.array(y)

        def fitting(rows):
            def fit(turn):
                network = KerasClassifier(MLP((64,)), epochs=1, batch_size=BATCH, random_state=turn)
                return network.fit(rows, labels)

            return fit

        seconds, fitted = turns(
            {"from disk": fitting(X), "from memory": fitting(inside)}, rounds=2 if quick else 7
        )
    weights = [model.network_.variables for model in fitted.values()]
    same = all(np.array_equal(weights[0][path], weights[1][path]) for path in weights[0])
    rows = n_rows / np.median(seconds["from disk"]) / 1e6
    figures = {"bit-equal": same, "million rows/s from disk": rows}
    return compared(seconds, figures=figures)


@scenario("stack-from-disk")
def stack(quick):
    """A stack of two cross-fitted `MLP((64,))`, one epoch each, of a file of up to 20 million rows.

    Memory (RssAnon + RssShmem) beyond the interpreter and TensorFlow: at most 1,500 MB. The largest
    also in a cgroup of 3 GB, where one can be made; and once killed in its second branch and begun
    again, with `memory=`, at the smallest size.
    """
    sizes = (
        (1_200_000, 2_400_000)
        if quick
        else (1_250_000, 2_500_000, 5_000_000, 10_000_000, 20_000_000)
    )
    figures, growth = {}, []
    for n_rows in sizes:
        with tempfile.TemporaryDirectory() as name:
            paths = stored(Path(name), n_rows)
            found = json.loads(fresh(STACK, *paths, 0, "", -1)[1])
            growth.append({"rows": n_rows, "MB": found["MB"], "s": found["s"]})
            print(growth[-1], file=sys.stderr, flush=True)
            if n_rows == sizes[0]:
                cache = Path(name) / "memory"
                fresh(STACK, *paths, 0, cache, 8)
                again = json.loads(fresh(STACK, *paths, 0, cache, -1)[1])
                figures["fits of a run"] = found["fits"]
                figures["fits when resumed"] = again["fits"]
                figures["resumed: the same loss"] = again["loss"] == found["loss"]
            if n_rows == sizes[-1]:
                limited = json.loads(fresh(STACK, *paths, 3 * 2**30, "", -1)[1])
                figures["in a cgroup of 3 GB"] = limited["limited"] and limited["s"]
    for found in growth:
        figures[f"{found['rows']:,} rows"] = f"{found['MB']:.0f} MB, {found['s']:.0f} s"
    return {"figures": figures, "by_rows": growth}


def draw(result, path):
    """Draw memory and seconds of `stack-from-disk` by the number of rows to a file."""
    from matplotlib.figure import Figure

    growth = result["by_rows"]
    rows = [each["rows"] / 1e6 for each in growth]
    figure = Figure(figsize=(8, 3), dpi=120, layout="constrained")
    memory, seconds = figure.subplots(1, 2)
    memory.plot(rows, [each["MB"] for each in growth], marker="o", label="fit from disk")
    table = [each["rows"] * COLUMNS * 4 / 1e6 for each in growth]
    memory.plot(rows, table, color="grey", linestyle="--", label="size of the table")
    memory.set(xlabel="million rows", ylabel="memory beyond TensorFlow, MB", ylim=(0, None))
    memory.legend()
    seconds.plot(rows, [each["s"] for each in growth], marker="o")
    seconds.set(xlabel="million rows", ylabel="seconds", ylim=(0, None))
    figure.savefig(path)
