"""Print the oldest versions that pyproject.toml admits, as constraints for pip (`make test-floor`).

python tests/floor.py > constraints.txt
pip install --constraint constraints.txt '.[dev]'
"""

import itertools
import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def floors():
    """Lower bound of each requirement by name, the extras' too; a missing bound is an error."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    found = {}
    for requirement in itertools.chain(project["dependencies"], *extras):
        name = re.match(r"[\w.-]+", requirement).group()
        if name != project["name"]:
            found[name] = re.search(r">=\s*([\d.]+)", requirement).group(1)
    return found


if __name__ == "__main__":
    for name, version in floors().items():
        print(f"{name}=={version}")
