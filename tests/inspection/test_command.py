"""``python -m skstack.inspection`` prints a report; its exit code tells a CI job of a leak."""

import pickle
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skstack.inspection.__main__ import main

X, Y = make_classification(120, 5, flip_y=0.2, random_state=0)
CLEAN = pd.DataFrame(X * 3 + 7, columns=list("abcde")).assign(y=Y, who=np.arange(120) // 4)
PIPELINE = make_pipeline(StandardScaler(), LogisticRegression())


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    CLEAN.to_csv("clean.csv", index=False)
    CLEAN.assign(answer=Y * 2.0 + 1).to_csv("leak.csv", index=False)
    answers = pd.Series(np.where(Y == 1, "yes", "no")).mask(np.arange(120) == 3)
    CLEAN.assign(y=answers, day="1/2/23", z=Y).to_csv("gap.csv", index=False)
    (tmp_path / "empty.pickle").touch()
    with open("model.pickle", "wb") as file:
        pickle.dump(PIPELINE, file)
    (tmp_path / "models_of_this_test.py").write_text(
        "from sklearn.naive_bayes import GaussianNB\nbayes = GaussianNB()\n"
        "def made():\n    return GaussianNB(var_smoothing=1e-6)\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    "estimator", ["model.pickle", "models_of_this_test:bayes", "models_of_this_test:made"]
)
def test_exit_codes(files, capsys, estimator):
    assert main([estimator, "clean.csv", "y", "--drop", "who", "--html", "report.html"]) == 0
    assert "no leak found" in capsys.readouterr().out
    assert (files / "report.html").read_text().startswith("<p>")
    assert main([estimator, "leak.csv", "y", "--drop", "who"]) == 1
    out, err = capsys.readouterr()
    assert "column answer alone" in out
    assert "[leakage_report]" in err


def test_groups_and_times(files, capsys):
    assert main(["model.pickle", "clean.csv", "y", "--groups", "who", "--cv", "3"]) == 0
    assert "no group is on both sides" in capsys.readouterr().out
    assert main(["model.pickle", "clean.csv", "y", "--time", "who", "--cv", "3"]) in (0, 1)
    assert "no times were passed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.pickle", "clean.csv", "z"], "columns ['z'] are not in"),
        (["nothing", "clean.csv", "y"], "neither a file nor MODULE:NAME"),
        (["model.pickle", "nothing.csv", "y"], "nothing.csv"),
        (["model.pickle", "clean.csv", "y", "--cv", "1"], "--cv 1: expected at least 2"),
        (["model.pickle", "clean.csv", "y", "--groups", "who", "--cv", "100"], "n_splits=100"),
        (["model.pickle", "clean.csv", "y", "--html", "none/report.html"], "--html none/report"),
        (["model.pickle", "gap.csv", "y"], "y holds missing values"),
        (["model.pickle", "gap.csv", "who", "--time", "day"], "time holds text, such as '1/2/23'"),
        (["model.pickle", "gap.csv", "z", "--drop", "y"], "could not convert string to float"),
        (["empty.pickle", "clean.csv", "y"], "empty.pickle cannot be read as a pickle"),
        (["clean.csv", "clean.csv", "y"], "clean.csv cannot be read as a pickle"),
        (["models_of_this_test:none", "clean.csv", "y"], "there is no 'none' in"),
    ],
)
def test_wrong_arguments(files, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_an_error_of_the_estimator_is_no_leak(files, capsys):
    (files / "models_that_fail.py").write_text(
        "from sklearn.naive_bayes import GaussianNB\n"
        "class Broken(GaussianNB):\n    def fit(self, X, y):\n        return {}['lost']\n"
    )
    assert main(["models_that_fail:Broken", "clean.csv", "y"]) == 2
    assert "KeyError: 'lost'" in capsys.readouterr().err
