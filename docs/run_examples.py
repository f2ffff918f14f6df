"""Run the examples whole, and store what they print and draw in docs/runs (`make gallery`).

python docs/run_examples.py [NAME ...]
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "docs" / "runs"


def store(script):
    """Store the output of one script, and its picture if it draws one."""
    source = script.read_text(encoding="utf-8")
    picture = f"{script.stem}.png"
    with tempfile.TemporaryDirectory() as folder:
        options = []
        if '"--plot"' in source:
            options = ["--plot", picture]
        elif '"--output"' in source:
            options = ["--output", "."]
        done = subprocess.run(
            [sys.executable, str(script), *options],
            cwd=folder,
            env={**os.environ, "MPLBACKEND": "Agg"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        (RUNS / f"{script.stem}.txt").write_text(done.stdout, encoding="utf-8")
        if (Path(folder) / picture).exists():
            shutil.copy(Path(folder) / picture, RUNS / picture)


if __name__ == "__main__":
    scripts = sorted((ROOT / "examples").glob("*.py"))
    unknown = set(sys.argv[1:]) - {script.stem for script in scripts}
    if unknown:
        sys.exit(f"no such examples: {sorted(unknown)}")
    for each in scripts:
        if each.stem in sys.argv[1:] or len(sys.argv) == 1:
            print(each.stem, flush=True)
            store(each)
