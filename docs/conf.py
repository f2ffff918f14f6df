"""How Sphinx builds the site: `make docs`."""

import importlib
import inspect
import os
import re
import sys
import textwrap
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["MPLBACKEND"] = "Agg"
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import skstack  # noqa: E402

project = "skstack"
author = "skstack developers"
copyright = "2026, skstack developers"
version = release = skstack.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_templates", "**/sg_execution_times.rst", "sg_execution_times.rst"]
nitpicky = False
default_role = "literal"  # as in Markdown: `name` is code

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

toc_object_entries_show_parents = "hide"  # beside a class: fit(), not StackedKerasClassifier.fit()

html_theme = "pydata_sphinx_theme"
html_title = "skstack"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_theme_options = {
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
ALONE = ("index", "tutorial", "how_to", "glossary", "limitations", "changelog")
html_sidebars = {page: [] for page in ALONE}  # no page stands beside them

# The reference: a page for each name in `__all__`, with all of its methods.
autosummary_generate = True
autosummary_ignore_module_all = False
autosummary_imported_members = True
autodoc_typehints = "none"
numpydoc_show_class_members = True
numpydoc_show_inherited_class_members = True
numpydoc_class_members_toctree = False

PUBLIC = (
    "skstack",
    "skstack.networks",
    "skstack.losses",
    "skstack.ensemble",
    "skstack.preprocessing",
    "skstack.inspection",
)


def write_reference():
    """Write api/index.rst: a section for each public module, a line for each name in `__all__`."""
    lines = ["Reference", "=========", ""]
    for name in PUBLIC:
        module = importlib.import_module(name)
        summary = inspect.getdoc(module).splitlines()[0]
        lines += [name, "-" * len(name), "", summary, "", f".. currentmodule:: {name}", ""]
        lines += [".. autosummary::", "   :toctree: generated", "   :nosignatures:", ""]
        lines += [f"   {public}" for public in sorted(module.__all__, key=str.lower)] + [""]
    path = HERE / "api" / "index.rst"
    text = "\n".join(lines)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


write_reference()

# The gallery shows what a whole run has printed and drawn (run_examples.py), and runs nothing.
RUNS = HERE / "runs"
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "plot_gallery": False,
    "ignore_pattern": r"make_\w+\.py",
    "nested_sections": False,
    "backreferences_dir": "gallery/backreferences",
    "doc_module": ("skstack",),
    "remove_config_comments": True,
    "download_all_examples": False,
    "within_subsection_order": "FileNameSortKey",
    "min_reported_time": float("inf"),
}


def add_run(app, docname, source):
    """Append to a page of the gallery what the script has printed and drawn."""
    folder, _, name = docname.rpartition("/")
    if folder != "gallery" or name == "index":
        return
    added = ""
    if (RUNS / f"{name}.png").exists():
        added += f"\n\n.. image:: /runs/{name}.png\n   :alt: What the script draws\n"
    if (RUNS / f"{name}.txt").exists():
        printed = (RUNS / f"{name}.txt").read_text(encoding="utf-8")
        added += "\n\nIt prints:\n\n.. code-block:: text\n\n" + textwrap.indent(printed, "   ")
    source[0] += added


def mend_docstring(app, what, name, obj, options, lines):
    """Methods inherited from scikit-learn refer to pages of its guide, which are not here."""
    lines[:] = [re.sub(r":(?:ref|term):`([^`<]*?)\s*(?:<[^`]*>)?`", r"\1", line) for line in lines]
    # In a type, where code is not marked, a trailing underscore is a link of reStructuredText.
    lines[:] = [re.sub(r"(?<=shape \()(\w+)_(?=,)", r"\1\\_", line) for line in lines]


def setup(app):
    """Connect the functions above."""
    app.connect("source-read", add_run)
    app.connect("autodoc-process-docstring", mend_docstring, priority=400)  # before numpydoc
