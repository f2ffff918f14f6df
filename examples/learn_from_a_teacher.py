"""Learning from a teacher
=======================

What each teacher mode adds with few labelled digits.

A teacher is trained on 900 handwritten digits. A small network is trained on 60 others, alone or
with `TeacherLoss`. All are scored on digits that neither has seen. `--quick` uses three seeds
instead of ten.
"""

import argparse

import numpy as np
import pandas as pd
from scipy.stats import t as t_distribution
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import skstack
from skstack import KerasClassifier
from skstack.losses import TeacherLoss
from skstack.networks import MLP

skstack.silence_tensorflow()

FEW, MANY = 60, 900


def scores_of(seed, X, y):
    """Accuracy of each contestant on new digits, for one draw of the rows."""
    X, X_test, y, y_test = train_test_split(
        X, y, train_size=FEW + MANY, stratify=y, random_state=seed
    )
    X, X_teacher, y, y_teacher = train_test_split(
        X, y, train_size=FEW, stratify=y, random_state=seed
    )

    teacher = KerasClassifier(MLP((128, 64)), epochs=40, random_state=seed)
    teacher.fit(X_teacher, y_teacher)
    student = KerasClassifier(MLP((32,)), epochs=150, batch_size=16, random_state=seed)
    contestants = {
        "alone": "auto",
        "distill": TeacherLoss(teacher, weight=0.9, temperature=4.0),
        "features": TeacherLoss(teacher, mode="features", weight=0.5),
        "blend": TeacherLoss(teacher, mode="blend", weight=0.5),
        "head": TeacherLoss(teacher, mode="head"),
    }
    scores = {"the teacher itself": teacher.score(X_test, y_test)}
    for name, loss in contestants.items():
        scores[name] = student.set_params(loss=loss).fit(X, y).score(X_test, y_test)
    return scores


def summary(scores):
    """Mean and spread over seeds; the gain over the network alone, with a 95 % interval."""
    gain = scores.sub(scores["alone"], axis=0)
    half = t_distribution.ppf(0.975, len(scores) - 1) * gain.std() / np.sqrt(len(scores))
    return pd.DataFrame(
        {
            "accuracy": scores.mean(),
            "sd": scores.std(),
            "gain": gain.mean(),
            "from": gain.mean() - half,
            "to": gain.mean() + half,
        }
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three seeds")
    seeds = range(3 if parser.parse_args().quick else 10)

    X, y = load_digits(return_X_y=True)
    scores = pd.DataFrame([scores_of(seed, X, y) for seed in seeds])
    print(f"{FEW} labelled digits, a teacher that has seen {MANY}; {len(scores)} seeds\n")
    print(summary(scores).to_string(float_format="{:.3f}".format))
    print(
        "\n'distill' and 'features' do not need the teacher after training; 'blend' and "
        "'head' need it for every prediction.\nThe intervals are over draws that share digits, so "
        "they are somewhat too narrow."
    )


if __name__ == "__main__":
    main()
