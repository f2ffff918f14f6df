"""Run the scenarios, each in a process of its own. See README.md in this folder.

``python benchmarks/run.py [--quick] [--only NAME ...] [--output FOLDER]``
"""

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
MODULES = ("fits", "searches", "clusters", "predictions", "process", "growth", "disk", "reports")
# What of a result is drawn, and the module that draws it.
PICTURES = {"curves": "growth", "by_rows": "disk"}


def scenarios():
    from harness import SCENARIOS

    for name in MODULES:
        importlib.import_module(name)
    return SCENARIOS


def run_one(name, quick, path):
    """Run one scenario in this process and write its JSON."""
    from harness import described

    function, target = scenarios()[name]
    about = {"scenario": name, "what": " ".join((function.__doc__ or "").split()), "quick": quick}
    result = {**about, "target": target, **described(), **function(quick)}
    Path(path).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def lines(result):
    """What a person wants to read of a result."""
    yield f"{result['scenario']}: {result['what']}"
    parts = result.get("sizes", {"": result})
    for label, part in parts.items():
        for name, found in part.get("contestants", {}).items():
            target = result["target"].get(name)
            wanted = f", target {target} x" if target else ""
            where = f"{label}: " if label else ""
            yield f"  {where}{name}: {found['median_s']:.4g} s, {found['ratio']:.3g} x{wanted}"
    for key, value in result.get("figures", {}).items():
        yield f"  {key}: {value}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few rounds, small sizes")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of scenarios")
    parser.add_argument("--output", type=Path, help="folder for one JSON file for each scenario")
    parser.add_argument("--inside", metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    known = list(scenarios())
    for name in options.only or ():
        if name not in known:
            parser.error(f"no scenario {name!r}; there are {', '.join(known)}")
    if options.inside:
        run_one(options.only[0], options.quick, options.inside)
        return
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.only or known:
            path = (options.output or Path(scratch)) / f"{name}.json"
            quick = ["--quick"] if options.quick else []
            command = [sys.executable, __file__, "--only", name, "--inside", str(path), *quick]
            subprocess.run(command, check=True)
            result = json.loads(path.read_text(encoding="utf-8"))
            print("\n".join(lines(result)), flush=True)
            for key, module in PICTURES.items():
                if options.output and key in result:
                    importlib.import_module(module).draw(result, options.output / f"{name}.png")


if __name__ == "__main__":
    main()
