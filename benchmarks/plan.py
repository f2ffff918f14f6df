"""How long a search takes on a cluster, what it moves and what it costs, from measured figures.

python benchmarks/plan.py                         # the table of the user guide
python benchmarks/plan.py --workers 40 --rows 1e7 --candidates 200 --price 0.35
python benchmarks/plan.py --measure figures.json  # the figures of this machine, in two minutes
python benchmarks/plan.py --figures figures.json

The simulation gives fits to workers in the order in which scikit-learn makes them. A worker imports
TensorFlow, receives the table once, compiles each architecture once, and fits.
"""

import argparse
import heapq
import itertools
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

FIGURES = Path(__file__).with_suffix(".json")
SMALL, LARGE = 20_000, 60_000  # rows of the two fits whose difference is measured
EPOCHS = 5


@dataclass
class Figures:
    """What was measured, for 30 columns and ``MLP((128, 64))`` with batches of 128.

    Attributes
    ----------
    machine : str
    start : float
        Seconds from the start of a worker until it can fit: Python, imports.
    compile : float
        Seconds by which the first fit of an architecture is longer than later ones.
    fit : float
        Seconds of a fit that do not depend on the number of rows.
    row : float
        Seconds for each training row and epoch, with one thread.
    sent : float
        Bytes that two workers receive for each byte of the table, divided by 2.
    memory : float
        Bytes that a worker holds while it fits, the table included, for each byte of the table.
    """

    machine: str
    start: float
    compile: float
    fit: float
    row: float
    sent: float
    memory: float


@dataclass
class Search:
    """A search, and the cluster that it runs on.

    Attributes
    ----------
    rows, columns : int
        Size of the table, of float32.
    candidates, architectures, folds, epochs : int
        Candidates of one architecture follow one another.
    workers : int
    bandwidth : float
        Bytes per second that a machine sends, and that it receives.
    price : float
        Dollars per worker and hour.
    """

    rows: int = 1_000_000
    columns: int = 30
    candidates: int = 12
    architectures: int = 2
    folds: int = 5
    epochs: int = 20
    workers: int = 100
    bandwidth: float = 1.25e9
    price: float = 0.1


def simulate(search, figures):
    """Seconds, bytes and dollars of a search, and its efficiency against one worker."""
    table = search.rows * search.columns * 4
    arrival = table * figures.sent / search.bandwidth
    train = search.rows * (search.folds - 1) / search.folds
    # A number of columns other than 30 changes the first layer only: an upper bound.
    fit = figures.fit + train * search.epochs * figures.row * max(1, search.columns / 30)
    n_fits = search.candidates * search.folds
    busy = min(search.workers, n_fits)  # dask and Ray start no task on the others

    # Whoever has the table passes it on: in each round twice as many workers have it.
    rounds = (number.bit_length() for number in range(1, busy + 1))
    free = [(figures.start + n * arrival, worker, set()) for worker, n in enumerate(rounds)]
    heapq.heapify(free)
    end = 0.0
    each = search.candidates / search.architectures
    for number in range(n_fits):
        now, worker, known = heapq.heappop(free)
        architecture = int(number // search.folds // each)
        seconds = fit + (0 if architecture in known else figures.compile)
        end = max(end, now + seconds)
        heapq.heappush(free, (now + seconds, worker, known | {architecture}))
    alone = figures.start + arrival + search.architectures * figures.compile + n_fits * fit
    return {
        "seconds": end,
        "bytes": busy * table * figures.sent,
        "bytes of a worker": table * figures.sent,
        "memory of a worker": table * figures.memory,
        "busy workers": busy,
        "efficiency": alone / end / busy,
        "dollars": search.workers * end / 3600 * search.price,
    }


def measure():
    """The figures of this machine, with one thread for each worker."""
    from clusters import ONE_THREAD
    from harness import described, fresh

    starts = [fresh(_START, **ONE_THREAD)[0] for _ in range(3)]
    _, printed = fresh("import plan; plan.measure_fits()", **ONE_THREAD)
    about = described()
    machine = about["machine"]
    return Figures(
        f"{machine['cores']} shared cores, {machine['processor']}, one thread for each worker",
        start=statistics.median(starts),
        sent=run_bytes(),
        memory=float(fresh("import plan; plan.measure_memory()", **ONE_THREAD)[1]),
        **json.loads(printed.splitlines()[-1]),
    )


_START = """
import keras, skstack
from skstack import KerasClassifier
"""


def measure_fits():
    """Print seconds of compiling, of a fit, and of a row, in a process of its own."""
    from contestants import ours, table

    X, y = table(LARGE, 30)

    def fit(n, seed):
        start = time.perf_counter()
        ours((128, 64), EPOCHS, 128, random_state=seed).fit(X[:n], y[:n])
        return time.perf_counter() - start

    ours((8,), 1, 128).fit(X[:200], y[:200])  # what the first fit of a process does besides
    first = fit(SMALL, 0)
    small, large = ([fit(n, seed) for seed in range(5)] for n in (SMALL, LARGE))
    small, large = statistics.median(small), statistics.median(large)
    row = (large - small) / (LARGE - SMALL) / EPOCHS
    found = {"compile": first - small, "fit": max(0, small - row * SMALL * EPOCHS), "row": row}
    print(json.dumps(found))


def measure_memory():
    """Print how much the memory of a process grows by a table and a fit, in tables."""
    import resource

    import numpy as np
    from contestants import ours, table

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    ours((128, 64), 1, 128).fit(*table(2_000, 30))
    before = peak()
    rng = np.random.default_rng(0)
    X = rng.standard_normal((500_000, 30), dtype=np.float32)
    y = (X[:, 0] > 0).astype(np.int64)
    ours((128, 64), 1, 128, random_state=0).fit(X, y)
    print((peak() - before) / X.nbytes)


def run_bytes():
    """Bytes that each of two workers receives for a search, in tables."""
    from clusters import bytes_to_workers

    return bytes_to_workers(quick=False)["figures"]["received, in tables"]["one search"] / 2


def shown(result):
    """Cells of a row: time, bytes, efficiency, dollars."""
    seconds = result["seconds"]
    units = ((86_400, "days"), (3_600, "hours"), (60, "minutes"), (1, "s"))
    size, unit = next((size, unit) for size, unit in units if seconds >= 2 * size or size == 1)
    powers = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"))
    amount, name = next((p, name) for p, name in powers if result["bytes"] >= p or p == 1e6)
    return (
        f"{float(f'{seconds / size:.2g}'):g} {unit}",
        f"{result['bytes'] / amount:.3g} {name}",
        f"{result['efficiency']:.0%}",
        f"${result['dollars']:.2f}",
    )


def report(figures, price):
    """Lines of the table of the user guide."""
    yield "| rows | workers | time | moved | efficiency | cost |"
    yield "| ---: | ---: | ---: | ---: | ---: | ---: |"
    for rows, workers in itertools.product((10**5, 10**7, 10**9), (1, 10, 100)):
        search = Search(rows=rows, workers=workers, candidates=40, architectures=4, price=price)
        yield f"| {rows:,} | {workers} | {' | '.join(shown(simulate(search, figures)))} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--figures", type=Path, default=FIGURES)
    parser.add_argument("--measure", type=Path, metavar="FILE")
    defaults = vars(Search())
    for name, value in defaults.items():
        kind = (lambda text: int(float(text))) if isinstance(value, int) else float
        parser.add_argument(f"--{name}", type=kind, help=f"default: {value}")
    options = parser.parse_args()
    if options.measure:
        options.measure.write_text(json.dumps(vars(measure()), indent=2) + "\n", encoding="utf-8")
        return
    figures = Figures(**json.loads(options.figures.read_text(encoding="utf-8")))
    given = {name: value for name in defaults if (value := getattr(options, name)) is not None}
    if given.keys() <= {"price"}:
        print("\n".join(report(figures, given.get("price", Search.price))))
        return
    search = Search(**given)
    print(search)
    for name, value in simulate(search, figures).items():
        print(f"{name}: {value:.6g}")


if __name__ == "__main__":
    main()
