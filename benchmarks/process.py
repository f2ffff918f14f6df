"""What a process pays: imports, and memory over hundreds of fits."""

from contestants import ours, table
from harness import compared, fresh, scenario, turns


@scenario("import", target={"scikit-learn": 1 / 1.2})
def imports(quick):
    """`import` in a new process; TensorFlow must not come along."""

    def importing(statement):
        return lambda _: fresh(f"{statement}\nimport sys\nprint('tensorflow' in sys.modules)")[1]

    seconds, printed = turns(
        {
            "skstack": importing("import skstack"),
            "skstack, every estimator": importing("from skstack import *"),
            "scikit-learn": importing("import sklearn"),
            "scikit-learn, neural networks": importing(
                "import sklearn.neural_network, sklearn.model_selection, sklearn.pipeline"
            ),
        },
        rounds=3 if quick else 11,
    )
    return compared(
        seconds,
        figures={f"tensorflow after {name}": text.strip() for name, text in printed.items()},
    )


@scenario("memory-of-300-fits")
def memory(quick):
    """Resident memory from fit 50 to fit 300 of a network, and of a stack's worth of shapes.

    At most 0.05 MB a fit.
    """
    X, y = table(2000, 30)
    figures = {}
    for label, settings in {
        "plain": {},
        "early stopping": {"early_stopping": True},
        "metrics": {"metrics": ["accuracy"]},
    }.items():
        first, last = (10, 40) if quick else (50, 300)
        before = 0.0
        for i in range(last):
            if i == first:
                before = resident()
            # Ever other numbers of rows, as of folds and samplers; enough of them for one engine.
            rows = 1300 + 2 * i
            model = ours((64,), 3, 32, random_state=i, **settings).fit(X[:rows], y[:rows])
            model.predict_proba(X[:rows])
        figures[f"{label}, MB a fit"] = (resident() - before) / (last - first)
    return {"figures": figures}


@scenario("memory-of-300-architectures")
def dropped(quick):
    """Growth of resident memory for each network of a new architecture, trained and dropped.

    At most 1 MB a program. Counted from where the caches of programs are full.
    """
    X, y = table(64, 6)
    figures = {}
    for label, epochs in {"with XLA": 30, "without XLA": 2}.items():
        first, last = (70, 100) if quick else (70, 300)
        before = 0.0
        for i in range(last):
            if i == first:
                before = resident()
            model = ours((5 + i,), epochs, 16, random_state=0).fit(X, y)
            model.predict_proba(X)
        figures[f"{label}, MB a program"] = (resident() - before) / (last - first)
    return {"figures": figures}


def resident():
    """Resident memory of this process in MB."""
    import gc

    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096 / 1e6
