"""How long a fit takes: skstack beside scikeras and scikit-learn. See README.md in this folder."""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
import warnings
from contextlib import nullcontext

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

SCENARIO = {"name": "fit-569x30", "hidden": 64, "epochs": 10, "batch_size": 32}
PACKAGES = ("skstack", "tensorflow", "keras", "scikit-learn", "scikeras", "numpy")


def skstack_fit(X, y, seed):
    from skstack import KerasClassifier
    from skstack.networks import MLP

    return KerasClassifier(
        MLP(hidden_layer_sizes=(SCENARIO["hidden"],)),
        epochs=SCENARIO["epochs"],
        batch_size=SCENARIO["batch_size"],
        learning_rate=1e-3,
        early_stopping=False,
        random_state=seed,
    ).fit(X, y)


def scikeras_fit(X, y, seed):
    import keras
    from scikeras.wrappers import KerasClassifier

    def build():
        return keras.Sequential(
            [
                keras.Input((X.shape[1],)),
                keras.layers.Dense(SCENARIO["hidden"], activation="relu"),
                keras.layers.Dense(1, activation="sigmoid"),
            ]
        )

    # random_state is left out: scikeras would switch the whole process to deterministic kernels.
    return KerasClassifier(
        build,
        loss="binary_crossentropy",
        optimizer="adam",
        optimizer__learning_rate=1e-3,
        epochs=SCENARIO["epochs"],
        batch_size=SCENARIO["batch_size"],
        verbose=0,
    ).fit(X, y)


def sklearn_fit(X, y, seed):
    return MLPClassifier(
        (SCENARIO["hidden"],),
        max_iter=SCENARIO["epochs"],
        batch_size=SCENARIO["batch_size"],
        learning_rate_init=1e-3,
        alpha=0.0,
        random_state=seed,
    ).fit(X, y)


# name: (fit, number of BLAS threads or None for the library's own choice)
CONTESTANTS = {
    "skstack": (skstack_fit, None),
    "sklearn MLPClassifier": (sklearn_fit, 1),
    "scikeras": (scikeras_fit, None),
}


def run(rounds):
    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X).astype(np.float32)  # for all three alike
    seconds = {name: [] for name in CONTESTANTS}
    accuracy = {}
    for turn in range(rounds + 1):
        for name, (fit, threads) in CONTESTANTS.items():
            with threadpool_limits(threads) if threads else nullcontext():
                start = time.perf_counter()
                model = fit(X, y, turn)
                elapsed = time.perf_counter() - start
            if turn > 0:  # the first fit of a process imports, builds and compiles
                seconds[name].append(elapsed)
            accuracy[name] = float(np.mean(model.predict(X) == y))
            print(f"{turn}/{rounds} {name}: {elapsed:.4f} s", file=sys.stderr, flush=True)
    return seconds, accuracy


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round only")
    parser.add_argument("--output", help="file for the JSON; standard output without it")
    options = parser.parse_args()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # ten epochs are what we ask for
        seconds, accuracy = run(1 if options.quick else 7)
    result = {
        "scenario": SCENARIO,
        "machine": {
            "cores": len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count(),
            "processor": platform.machine(),
            "system": platform.system(),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        "results": {
            name: {
                "median_s": statistics.median(times),
                "min_s": min(times),
                "max_s": max(times),
                "seconds": times,
                "training_accuracy": accuracy[name],
            }
            for name, times in seconds.items()
        },
    }
    text = json.dumps(result, indent=2)
    if options.output:
        with open(options.output, "w", encoding="utf-8") as file:
            file.write(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
