"""Sequences of unequal length
===========================

Recognise a speaker from 7 to 29 steps of 12 numbers.

Nine men pronounced two vowels repeatedly; the official test set was recorded on other occasions.
Utterances are lists of arrays, or cells of a DataFrame. `PadSequences` pads them to one length, and
`SequenceEncoder` ignores the padding. A GRU, an LSTM and convolutions are compared with a model
that ignores time, on the official split and by cross-validation. Then the convolutions are used in
stacks: upstream, where their layer `latent` is joined to other columns, and downstream, where they
read the voice and the predictions of another network. `--plot FILE` draws how many steps each
model needs.
"""

# sphinx_gallery_thumbnail_path = "runs/voices.png"

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t as t_distribution
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import skstack
from skstack import KerasClassifier, KerasFeatureTransformer, StackedKerasClassifier
from skstack.networks import SequenceEncoder
from skstack.preprocessing import PadSequences

skstack.silence_tensorflow()

DATA = Path(__file__).resolve().parent / "data" / "japanese_vowels.csv.gz"
STEPS = 29  # of the longest utterance
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#777777")


def read_voices(split):
    """A list of arrays of shape (steps, 12), and who speaks in each."""
    table = pd.read_csv(DATA)
    utterances = [rows for _, rows in table[table["split"] == split].groupby("utterance")]
    voices = [rows.filter(like="lpc").to_numpy() for rows in utterances]
    return voices, np.array([rows["speaker"].iloc[0] for rows in utterances])


def averages(voices):
    """Mean and standard deviation of each coefficient over the steps, ignoring their order."""
    return np.array([np.r_[voice.mean(axis=0), voice.std(axis=0)] for voice in voices])


def as_table(voices):
    """A table of averages and lengths, with the voices as cells of one column."""
    table = pd.DataFrame(averages(voices)).add_prefix("average_")
    table["length"] = [float(len(voice)) for voice in voices]
    return table.assign(voice=voices)


def verdict(gain, n_test_of_train):
    """Mean gain with its 95 % interval, widened as folds share rows (Nadeau and Bengio, 2003)."""
    k = len(gain)
    half = t_distribution.ppf(0.975, k - 1) * gain.std(ddof=1) * np.sqrt(1 / k + n_test_of_train)
    result = "within noise" if abs(gain.mean()) <= half else "more than noise"
    low, high = gain.mean() - half, gain.mean() + half
    return f"{gain.mean():+.3f} (95 % interval {low:+.3f} to {high:+.3f}): {result}"


def plot(accuracies, path):
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for (name, scores), colour in zip(accuracies.items(), COLOURS, strict=True):
        ax.plot(list(scores), list(scores.values()), color=colour, label=name)
    ax.axhline(1 / 9, color="#bbbbbb", linewidth=1, zorder=0)
    ax.text(STEPS, 1 / 9 + 0.01, "chance", ha="right", va="bottom", color="#777777")
    ax.set(xlabel="number of steps, from the first", ylabel="accuracy, official split", ylim=(0, 1))
    ax.legend(frameon=False, loc="best")
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two epochs, two folds")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw accuracy by steps")
    options = parser.parse_args()
    epochs, n_folds = (2, 2) if options.quick else (40, 5)
    voices, y = read_voices("train")
    others, y_others = read_voices("test")
    lengths = [len(voice) for voice in voices + others]
    print(f"{len(y)} training utterances, {len(y_others)} of other occasions", end="; ")
    print(f"{min(lengths)} to {max(lengths)} steps, median {np.median(lengths):.0f}")

    # A fixed length, because folds may lack the longest utterance.
    def encoder(layer):
        return KerasClassifier(SequenceEncoder(32, layer=layer), epochs=epochs, random_state=0)

    models = {
        layer: make_pipeline(PadSequences(length=STEPS), encoder(layer))
        for layer in ("gru", "lstm", "conv1d")
    }
    models["averages"] = make_pipeline(
        FunctionTransformer(averages), StandardScaler(), LogisticRegression()
    )
    folds = list(StratifiedKFold(n_folds, shuffle=True, random_state=0).split(y, y))
    print("\naccuracy       folds, ± standard deviation    official split, ± standard error")
    scores, accuracies = {}, {}
    for name, model in models.items():
        values = scores[name] = cross_val_score(model, voices, y, cv=folds)
        share = model.fit(voices, y).score(others, y_others)
        error = np.sqrt(share * (1 - share) / len(y_others))
        spread = values.std(ddof=1)
        print(f"{name:<14} {values.mean():.3f} ± {spread:.3f} {share:>24.3f} ± {error:.3f}")
        if options.plot:
            accuracies[name] = {
                steps: model.score([voice[:steps] for voice in others], y_others)
                for steps in range(1, STEPS + 1, 4 if options.quick else 1)
            }

    # Upstream: the encoder's layer, out-of-fold, with the length and the averages. Downstream: the
    # predictions of a network for the averages, with the voice itself, which passes through.
    columns = [f"average_{number}" for number in range(24)]
    network = KerasClassifier(epochs=epochs, random_state=0)
    latent = KerasFeatureTransformer(encoder("conv1d"), layers="latent", cv=3)
    upstream = StackedKerasClassifier(
        [("sound", latent, ["voice"])],
        downstream=network,
        passthrough=["length", *columns],
        random_state=0,
    )
    downstream = StackedKerasClassifier(
        [("first", network, columns)],
        downstream=encoder("conv1d"),
        blend=False,
        passthrough=["voice"],
        cv=3,
        random_state=0,
    )
    table = as_table(voices)
    print("\nin stacks")
    for name, stack in (("conv1d upstream", upstream), ("conv1d downstream", downstream)):
        model = make_pipeline(PadSequences("voice", length=STEPS), stack)
        values = scores[name] = cross_val_score(model, table, y, cv=folds)
        print(f"{name:<17} {values.mean():.3f} ± {values.std(ddof=1):.3f}")
    alone = scores.pop("conv1d")
    print("\nAgainst conv1d alone, fold by fold")
    for name, values in scores.items():
        print(f"  {name}: {verdict(values - alone, 1 / (n_folds - 1))}")

    if options.plot:
        plot(accuracies, options.plot)
        print(f"plot: {options.plot}")


if __name__ == "__main__":
    main()
