"""Make `bank_marketing.csv.gz` from the full table of the UCI Bank Marketing data set.

    python examples/data/make_bank_marketing.py bank-additional-full.csv

The source may be the semicolon-separated file from UCI or a comma-separated copy of it.
"""

import sys
from pathlib import Path

import pandas as pd

source = pd.read_csv(sys.argv[1], sep=None, engine="python", keep_default_na=False)
if source.shape != (41_188, 21):
    raise SystemExit(f"expected 41,188 rows and 21 columns, got {source.shape}")

table = (
    source.drop(columns="duration")  # known only after the call, as is its outcome
    .sample(10_000, random_state=0)
    .sort_index()  # back into date order
)
table.to_csv(
    Path(__file__).with_name("bank_marketing.csv.gz"),
    index=False,
    lineterminator="\n",
    compression={"method": "gzip", "compresslevel": 9, "mtime": 0},
)
