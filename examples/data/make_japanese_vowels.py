"""Make `japanese_vowels.csv.gz` from the two files of the UCI Japanese Vowels data set.

    python examples/data/make_japanese_vowels.py ae.train ae.test

Each line of the source is one time step; an empty line (in some copies a line of 1.0 only) ends an
utterance. The speakers follow from the order of the utterances.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

UTTERANCES = {  # number of utterances of the speakers 1 to 9
    "train": [30] * 9,
    "test": [31, 35, 88, 44, 29, 24, 40, 50, 29],
}

tables = []
for (split, numbers), source in zip(UTTERANCES.items(), sys.argv[1:], strict=True):
    speakers = np.repeat(np.arange(1, 10), numbers)
    utterances = [[]]
    for line in Path(source).read_text(encoding="ascii").splitlines():
        step = np.array(line.split(), dtype=float)
        if len(step) and (step != 1).any():
            utterances[-1].append(step)
        elif utterances[-1]:
            utterances.append([])
    utterances = [np.array(steps) for steps in utterances if steps]
    if len(utterances) != len(speakers):
        raise SystemExit(f"expected {len(speakers)} utterances in {source}, got {len(utterances)}")
    for number, (speaker, steps) in enumerate(zip(speakers, utterances, strict=True), start=1):
        # Three decimals halve the file; adding 0.0 leaves no "-0.0".
        table = pd.DataFrame(steps.round(3) + 0.0, columns=[f"lpc{i}" for i in range(1, 13)])
        table.insert(0, "split", split)
        table.insert(1, "utterance", number)
        table.insert(2, "speaker", speaker)
        tables.append(table)

table = pd.concat(tables)
if len(table) != 9_961:
    raise SystemExit(f"expected 9,961 steps, got {len(table):,}")
table.to_csv(
    Path(__file__).with_name("japanese_vowels.csv.gz"),
    index=False,
    lineterminator="\n",
    compression={"method": "gzip", "compresslevel": 9, "mtime": 0},
)
