import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(monkeypatch, capsys):
    """A function that runs a script in short, and returns what it prints.

    The script runs in this process, which has imported TensorFlow; `fresh` takes a new one.
    """

    def run(script, *options, cwd, fresh=False):
        arguments = ["--quick", *options]
        if fresh:
            command = [sys.executable, str(ROOT / script), *arguments]
            done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", [str(ROOT / script), *arguments])
        monkeypatch.syspath_prepend(str((ROOT / script).parent))
        capsys.readouterr()
        with warnings.catch_warnings():
            warnings.resetwarnings()  # those of a user, who sees warnings
            try:
                runpy.run_path(str(ROOT / script), run_name="__main__")
            except SystemExit as end:
                if end.code:
                    raise
        plt.close("all")
        return capsys.readouterr().out

    return run
