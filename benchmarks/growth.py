"""How cost grows: rows, columns, candidates. A table and a picture."""

import math
import statistics
import time
from itertools import pairwise

from contestants import ours, table
from harness import scenario
from sklearn.model_selection import GridSearchCV


def seconds(function, rounds):
    times = []
    for turn in range(rounds + 1):  # the first one compiles
        start = time.perf_counter()
        function(turn)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


@scenario("growth")
def growth(quick):
    """Warm fits and predictions: 1,000 to 1,000,000 rows, 10 to 1,000 columns, 1 to 60 candidates.

    Two layers (64, 32), one epoch, batches of 128. A slope of 1 between neighbours is linear.
    """
    rounds = 1 if quick else 3
    curves = {}

    def note(curve, size, value):
        curves.setdefault(curve, []).append([size, value])

    for n in [1_000, 10_000] if quick else [1_000, 10_000, 100_000, 1_000_000]:
        X, y = table(n, 30)
        model = ours((64, 32), 1, 128).fit(X, y)
        fit = lambda seed: ours((64, 32), 1, 128, random_state=seed).fit(X, y)  # noqa: B023, E731
        note("rows: fit", n, seconds(fit, rounds))
        note("rows: predict", n, seconds(lambda _: model.predict_proba(X), rounds))  # noqa: B023
    for d in [10, 100] if quick else [10, 30, 100, 300, 1000]:
        X, y = table(10_000, d)
        model = ours((64, 32), 1, 128).fit(X, y)
        fit = lambda seed: ours((64, 32), 1, 128, random_state=seed).fit(X, y)  # noqa: B023, E731
        note("columns: fit", d, seconds(fit, rounds))
        note("columns: predict", d, seconds(lambda _: model.predict_proba(X), rounds))  # noqa: B023
    X, y = table(1_000, 30)
    for n in [1, 4] if quick else [1, 4, 15, 60]:
        rates = [1e-3 * 1.05**i for i in range(n)]
        search = GridSearchCV(
            ours((64, 32), 5, 32, random_state=0), {"learning_rate": rates}, cv=5, refit=False
        )
        note("candidates: search", n, seconds(lambda _: search.fit(X, y), rounds))  # noqa: B023
    return {"curves": curves, "figures": dict(steepest(curves))}


def steepest(curves):
    """Largest growth from one size to the next, as a power of the size."""
    for name, points in curves.items():
        slopes = [
            math.log(later[1] / earlier[1]) / math.log(later[0] / earlier[0])
            for earlier, later in pairwise(points)
        ]
        told = ", ".join(f"{size:g}: {value:.4g} s" for size, value in points)
        yield name, f"{told}; steepest power {max(slopes):.2f}"


def draw(result, path):
    """Draw the curves of a result of `growth` to a file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.4), layout="constrained")
    kinds = ("rows", "columns", "candidates")
    for axes, kind in zip(figure.subplots(1, 3), kinds, strict=True):
        for name, points in result["curves"].items():
            if name.startswith(kind):
                sizes, values = zip(*points, strict=True)
                (line,) = axes.loglog(sizes, values, "o-", label=name.partition(": ")[2])
                linear = [values[-1] * size / sizes[-1] for size in sizes]
                axes.loglog(sizes, linear, ":", color=line.get_color(), alpha=0.6)
        axes.set(xlabel=kind, ylabel="seconds")
        axes.legend(frameon=False, title="dotted: linear")
    figure.savefig(path)
