"""Grid searches and cross-fitted stacks, compiling included, against the neighbours'."""

import os

from contestants import mlp, ours, scikeras, table
from harness import compared, scenario, turns
from imblearn.over_sampling import SMOTE
from imblearn.pipeline import Pipeline
from sklearn.ensemble import StackingClassifier
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.preprocessing import StandardScaler

ARCHITECTURES = [(128, 64), (64, 32)]
RATES = [3e-4, 1e-3, 3e-3]
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def sizes(quick):
    """Rows, folds and epochs."""
    return (2_000, 2, 4) if quick else (10_000, 5, 20)


def folds(n):
    return StratifiedKFold(n, shuffle=True, random_state=0)


def search(estimator, grid, n_folds, n_jobs, X, y):
    from joblib import parallel_backend

    with parallel_backend("threading"):
        found = GridSearchCV(
            estimator, grid, cv=folds(n_folds), n_jobs=n_jobs, scoring="roc_auc", refit=False
        ).fit(X, y)
    return float(found.best_score_)


@scenario(
    "grid-search-10000x30",
    target={
        "scikeras": 15,
        "MLPClassifier": 3,
        f"skstack, {CORES} threads": 1 / (2 if CORES > 3 else 1.5),
    },
)
def grid_search(quick):
    """12 candidates (2 architectures, 3 learning rates, with and without SMOTE) x 5 folds.

    10,000 x 30, two layers, 20 epochs, batches of 128, in an imblearn Pipeline with a scaler.
    Every round starts a new process, so that compiling counts.
    """
    n, n_folds, epochs = sizes(quick)
    names = {
        "skstack": ("ours", 1),
        f"skstack, {CORES} threads": ("ours", CORES),
        "MLPClassifier": ("mlp", 1),
        "scikeras": ("scikeras", 1),
    }
    scores = {}

    def run(label):
        def measured(_):
            from harness import fresh

            code = "import sys, searches; searches.one_search(*sys.argv[1:])"
            _, printed = fresh(code, *names[label], n, n_folds, epochs)
            elapsed, scores[label] = map(float, printed.split()[-2:])
            return elapsed

        return measured

    rounds = 1 if quick else 3
    seconds = {label: [] for label in names}
    for turn in range(rounds):
        for label in names:
            if label == "scikeras" and turn > 0:
                continue  # nine minutes each
            _, returned = turns({label: run(label)}, 1, warm_up=0)
            seconds[label].append(returned[label])
    return compared(seconds, best_score=scores)


def candidates(name, epochs):
    """The pipeline of one contestant, and the grid of its 12 candidates."""
    make = {"ours": ours, "mlp": mlp, "scikeras": scikeras}[name]
    network = make(ARCHITECTURES[0], epochs, 128)
    if name == "ours":
        from skstack.networks import MLP

        network.set_params(random_state=0)
        grid = {
            "network__model": [MLP(hidden_layer_sizes=sizes) for sizes in ARCHITECTURES],
            "network__learning_rate": RATES,
        }
    elif name == "mlp":
        network.set_params(random_state=0)
        grid = {
            "network__hidden_layer_sizes": ARCHITECTURES,
            "network__learning_rate_init": RATES,
        }
    else:
        grid = {
            "network__model__hidden": ARCHITECTURES,
            "network__optimizer__learning_rate": RATES,
        }
    pipeline = Pipeline(
        [("scaler", StandardScaler()), ("sampler", "passthrough"), ("network", network)]
    )
    grid["sampler"] = ["passthrough", SMOTE(random_state=0)]
    return pipeline, grid


def one_search(name, n_jobs, n, n_folds, epochs):
    """One search of one contestant; prints its seconds, imports left out, and its best score."""
    import time

    n_jobs, n, n_folds, epochs = map(int, (n_jobs, n, n_folds, epochs))
    X, y = table(n, 30)
    if name != "mlp":
        import keras  # noqa: F401
    pipeline, grid = candidates(name, epochs)
    start = time.perf_counter()
    best = search(pipeline, grid, n_folds, n_jobs, X, y)
    print(time.perf_counter() - start, best)


@scenario("stack-10000x30", target={"StackingClassifier of scikeras": 15})
def stack(quick):
    """Two upstream networks, 5 folds, passthrough, one downstream network; compiling included."""
    import keras  # noqa: F401

    from skstack import KerasFeatureTransformer, StackedKerasClassifier

    n, n_folds, epochs = sizes(quick)
    X, y = table(n, 30)

    def mine(seed):
        upstream = [
            (f"net{i}", KerasFeatureTransformer(ours(sizes, epochs, 128), features="outputs"))
            for i, sizes in enumerate(ARCHITECTURES)
        ]
        return StackedKerasClassifier(
            upstream,
            downstream=ours((128, 64), epochs, 128),
            blend=False,  # as StackingClassifier
            cv=folds(n_folds),
            passthrough=True,
            random_state=seed,
        ).fit(X, y)

    def theirs(_):
        upstream = [
            (f"net{i}", scikeras(sizes, epochs, 128)) for i, sizes in enumerate(ARCHITECTURES)
        ]
        downstream = scikeras((128, 64), epochs, 128, n_columns=32)
        return StackingClassifier(
            upstream, downstream, cv=folds(n_folds), passthrough=True, stack_method="predict_proba"
        ).fit(X, y)

    seconds, models = turns(
        {"skstack": mine, "StackingClassifier of scikeras": theirs},
        rounds=1 if quick else 3,
        warm_up=0,
    )
    return compared(
        seconds, training_accuracy={name: float(m.score(X, y)) for name, m in models.items()}
    )


@scenario("frozen-upstream-search-10000x30", target={"by hand": 15})
def frozen_search(quick):
    """8 candidates of the downstream of a frozen upstream x 5 folds, compiling included.

    By hand: `Model.predict` of the inner layer in each fold, then scikeras.
    """
    import keras
    from sklearn.base import BaseEstimator, TransformerMixin

    from skstack import KerasFeatureTransformer

    n, n_folds, epochs = sizes(quick)
    X, y = table(n, 30)
    pretrained = ours((128, 64), epochs, 128, random_state=0).fit(*table(n, 30, seed=1)).model_
    inner = keras.Model(pretrained.input, pretrained.get_layer("hidden_2").output)

    class Predict(TransformerMixin, BaseEstimator):
        def fit(self, X, y=None):
            return self

        def transform(self, X):
            return inner.predict(X, batch_size=1024, verbose=0)

    rates = [1e-4, 3e-4, 1e-3, 3e-3] if not quick else [1e-3]

    def run(features, network, names):
        steps = [("features", features), ("scaler", StandardScaler()), ("network", network)]
        grid = {f"network__{names[0]}": [32, 128], f"network__{names[1]}": rates}
        return search(Pipeline(steps), grid, n_folds, 1, X, y)

    def mine(seed):
        features = KerasFeatureTransformer(pretrained, layers="hidden_2")
        network = ours((64,), epochs, 128, random_state=seed)
        return run(features, network, ("batch_size", "learning_rate"))

    def theirs(_):
        network = scikeras((64,), epochs, 128, n_columns=64)
        return run(Predict(), network, ("batch_size", "optimizer__learning_rate"))

    seconds, scores = turns({"skstack": mine, "by hand": theirs}, 1, warm_up=0)
    return compared(seconds, best_score=scores)
