"""One fit: warm, with early stopping, the first of a process; one epoch against a bare loop."""

import tempfile

import numpy as np
from contestants import BareLoop, mlp, ours, plain_keras, scikeras, table, wrapped
from harness import compared, fresh, scenario, turns
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import cross_val_score
from sklearn.preprocessing import StandardScaler

SETTINGS = ((64,), 10, 32)  # units, epochs, batch size


def cancer():
    X, y = load_breast_cancer(return_X_y=True)
    return StandardScaler().fit_transform(X).astype(np.float32), y


@scenario("fit-569x30", target={"scikeras": 100, "MLPClassifier": 4})
def warm_fits(quick):
    """The second and later fits of a new estimator in one process."""
    X, y = cancer()
    bare = BareLoop(len(X), X.shape[1], *SETTINGS[::2])

    def accuracy(model):
        return float(np.mean(np.ravel(model.predict(X)) == y))

    seconds, models = turns(
        {
            "skstack": lambda seed: ours(*SETTINGS, random_state=seed).fit(X, y),
            "bare XLA loop": lambda seed: bare.fit(X, y, SETTINGS[1], seed),
            "MLPClassifier": lambda seed: mlp(*SETTINGS, random_state=seed).fit(X, y),
            "scikeras": lambda _: scikeras(*SETTINGS).fit(X, y),
            "keras.wrappers": lambda _: wrapped(*SETTINGS).fit(X, y),
            "Model.fit": lambda _: plain_keras(X, y, *SETTINGS),
        },
        rounds=2 if quick else 9,
        warm_up=0 if quick else 1,
    )
    return compared(
        seconds,
        training_accuracy={
            name: accuracy(models[name]) for name in ("skstack", "MLPClassifier", "scikeras")
        },
    )


@scenario("cross-validation-569x30", target={"scikeras": 100})
def cross_validation(quick):
    """`cross_val_score` with ten folds: fits and predictions one right after another."""
    X, y = cancer()

    def scored(make):
        return lambda _: cross_val_score(make(*SETTINGS), X, y, cv=10).mean()

    contestants = {"skstack": ours, "MLPClassifier": mlp, "scikeras": scikeras}
    seconds, scores = turns(
        {name: scored(make) for name, make in contestants.items()},
        rounds=1 if quick else 5,
        warm_up=0 if quick else 1,
    )
    return compared(seconds, accuracy={name: float(score) for name, score in scores.items()})


@scenario("fit-569x30-early-stopping", target={"scikeras": 40})
def early_stopping(quick):
    """The same with early stopping on a tenth of the rows, ten epochs at most."""
    import keras

    X, y = cancer()

    def theirs(_):
        stop = keras.callbacks.EarlyStopping(patience=10, restore_best_weights=True)
        return scikeras(*SETTINGS, callbacks=[stop], validation_split=0.1).fit(X, y)

    seconds, models = turns(
        {
            "skstack": lambda seed: ours(
                *SETTINGS,
                early_stopping=True,
                validation_fraction=0.1,
                n_iter_no_change=10,
                random_state=seed,
            ).fit(X, y),
            "MLPClassifier": lambda seed: mlp(
                *SETTINGS, early_stopping=True, validation_fraction=0.1, random_state=seed
            ).fit(X, y),
            "scikeras": theirs,
        },
        rounds=2 if quick else 9,
    )
    return compared(seconds, epochs={"skstack": models["skstack"].n_iter_})


FIRST = """
import sys
from fits import SETTINGS, cancer
from contestants import {name}
X, y = cancer()
{name}(*SETTINGS).fit(X, y)
"""


@scenario("first-fit-569x30", target={"scikeras": 1})
def first_fits(quick):
    """A new process that imports, fits once and ends; also with compiled programs on disk."""

    def first(name, **variables):
        return lambda _: fresh(FIRST.format(name=name), **variables)

    with tempfile.TemporaryDirectory() as folder:
        contestants = {
            "skstack": first("ours"),
            "skstack, compiled before": first(
                "ours", TF_XLA_FLAGS=f"--tf_xla_persistent_cache_directory={folder}"
            ),
            "scikeras": first("scikeras"),
            "MLPClassifier": first("mlp"),
        }
        seconds, _ = turns(contestants, rounds=1 if quick else 7, warm_up=0 if quick else 1)
    return compared(seconds)


SIZES = {
    "569x30, 64, batches of 32": (569, 30, (64,), 32, 10),
    "8000x30, 128-64, batches of 128": (8000, 30, (128, 64), 128, 10),
    "20000x50, 64, batches of 32": (20_000, 50, (64,), 32, 3),
    "20000x50, 256-128, batches of 256": (20_000, 50, (256, 128), 256, 5),
}


@scenario("epoch-against-bare-loop")
def epochs(quick):
    """What one epoch costs: the difference of two fits of n and 3 n epochs, divided by 2 n.

    At most 1.3 times as long as the barest loop, so that `bare / skstack` is at least 0.77.
    """
    results = {}
    for label, (n_rows, n_columns, hidden, batch, n_epochs) in SIZES.items():
        X, y = table(n_rows, n_columns)
        bare = BareLoop(n_rows, n_columns, hidden, batch)
        few, many = n_epochs, 3 * n_epochs

        def fit(epochs, X=X, y=y, hidden=hidden, batch=batch):
            return lambda seed: ours(hidden, epochs, batch, random_state=seed).fit(X, y)

        def by_hand(epochs, X=X, y=y, bare=bare):
            return lambda seed: bare.fit(X, y, epochs, seed)

        seconds, _ = turns(
            {
                "skstack": fit(few),
                "skstack, more": fit(many),
                "bare": by_hand(few),
                "bare, more": by_hand(many),
            },
            rounds=2 if quick else 11,
        )
        each = {
            name: [
                (more - less) / (many - few)
                for less, more in zip(seconds[name], seconds[f"{name}, more"], strict=True)
            ]
            for name in ("skstack", "bare")
        }
        results[label] = compared(each)
        results[label]["skstack_over_bare"] = 1 / results[label]["contestants"]["bare"]["ratio"]
    return {"sizes": results}


@scenario("teacher")
def teacher(quick):
    """What a teacher costs: fits with `TeacherLoss` in each mode, against the same without one.

    At most 1.5 times as long, so that `without a teacher / skstack` is at least 0.67.
    """
    from skstack.losses import TeacherLoss

    sizes = {
        "569x30, 64, batches of 32": (*cancer(), SETTINGS),
        "8000x30, 128-64, batches of 128": (*table(8000, 30), ((128, 64), 10, 128)),
    }
    results = {}
    for label, (X, y, settings) in sizes.items():
        knows = ours(*settings, random_state=1).fit(X, y)
        for mode in ("distill", "blend", "head", "features"):
            loss = TeacherLoss(knows, mode=mode)
            seconds, models = turns(
                {
                    "skstack": lambda seed, X=X, y=y, settings=settings, loss=loss: ours(
                        *settings, loss=loss, random_state=seed
                    ).fit(X, y),
                    "without a teacher": lambda seed, X=X, y=y, settings=settings: ours(
                        *settings, random_state=seed
                    ).fit(X, y),
                },
                rounds=2 if quick else 11,
            )
            found = compared(
                seconds, training_accuracy={name: m.score(X, y) for name, m in models.items()}
            )
            found["with_over_without"] = 1 / found["contestants"]["without a teacher"]["ratio"]
            results[f"{label}, {mode}"] = found
    return {"sizes": results}


@scenario("progress-bar", target={"without": 0.97})
def progress_bar(quick):
    """A fit of `MLP((64,))`, 100 epochs in batches of 256, 10,000 x 30, with a `ProgressBar`."""
    import contextlib
    import io

    from sklearn.callback import ProgressBar

    from skstack import KerasClassifier
    from skstack.networks import MLP

    X, y = table(2_000 if quick else 10_000, 30)

    def fit(*callbacks):
        def timed(seed):
            network = KerasClassifier(MLP((64,)), epochs=100, batch_size=256, early_stopping=False)
            network.set_params(random_state=seed).set_callbacks(*callbacks)
            with contextlib.redirect_stdout(io.StringIO()):
                return network.fit(X, y)

        return timed

    seconds, _ = turns({"with": fit(ProgressBar()), "without": fit()}, rounds=2 if quick else 11)
    return compared(seconds)


@scenario("bag-of-64")
def bag_of_64(quick):
    """A bag of 8 TabM with 8 members each against one network of one member, at the same width.

    10,000 x 30, the default widths, 3 epochs, batches of 256, compiled before. FLOPs are those of
    the matrix products of a fit: 2 for each weight, row, member and epoch, and 3 times that with
    gradients. `peak` is what this machine reaches in a product of two large matrices.
    """
    from joblib import parallel_config

    from skstack import KerasClassifier
    from skstack.networks import TabM

    X, y = table(2_000 if quick else 10_000, 30)
    settings = {"epochs": 3, "batch_size": 256, "early_stopping": False}

    def fit(n_members, n_bags=1, n_jobs=1):
        def timed(seed):
            network = KerasClassifier(TabM(n_members=n_members), n_bags=n_bags, **settings)
            with parallel_config("threading", n_jobs=n_jobs):
                return network.set_params(random_state=seed).fit(X, y)

        return timed

    seconds, models = turns(
        {
            "one network": fit(1),
            "the default, 16 members": fit(16),
            "8 bags of 8, one after another": fit(8, 8),
            "8 bags of 8, two threads": fit(8, 8, 2),
            "64 members in one program": fit(64),
        },
        rounds=1 if quick else 5,
    )
    bag = models["8 bags of 8, two threads"]
    apart = [
        fit(8)(each.random_state).predict_proba(X) - each.predict_proba(X) for each in bag.bags_[:2]
    ]
    weights = sum(
        np.prod(layer.kernel.shape)
        for layer in models["one network"].model_.layers
        if type(layer).__name__ == "Dense"
    )
    weights += bag.bags_[0].model_.get_layer("hidden_2").output.shape[-1]  # the output layer
    flops = 3 * 2 * int(weights) * len(X) * settings["epochs"]
    median = {name: float(np.median(times)) for name, times in seconds.items()}
    n_members = dict.fromkeys(median, 64)
    n_members.update({"one network": 1, "the default, 16 members": 16})
    reached = {name: flops * n_members[name] / median[name] / 1e9 for name in median}
    return compared(
        seconds,
        figures={
            "GFLOP of one member": flops / 1e9,
            "GFLOP/s": {name: round(rate, 1) for name, rate in reached.items()},
            "GFLOP/s at the peak": round(peak_flops(500 if quick else 4_000) / 1e9, 1),
            "times one network": {
                name: round(median[name] / median["one network"], 2) for name in median
            },
            "largest difference from separate fits": float(np.abs(apart).max()),
        },
    )


def peak_flops(n):
    """FLOPs per second of a product of two matrices of float32 in TensorFlow, all threads."""
    import time

    import tensorflow as tf

    a = tf.random.normal((n, n))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        tf.matmul(a, a).numpy()
        times.append(time.perf_counter() - start)
    return 2 * n**3 / min(times)
