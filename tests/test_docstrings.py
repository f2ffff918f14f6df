"""Public docstrings follow numpydoc."""

import dataclasses
import inspect

import pytest
from numpydoc.validate import validate

import skstack
from skstack.networks import Recipe
from skstack.networks._numeric import NumericEmbedding

MODULES = ["skstack", *(f"skstack.{name}" for name in skstack._SUBPACKAGES)]
# Left out: a section See Also, an extended summary, names of what is returned as scikit-learn
# writes them ("self : object"), and the verb, which "Class probabilities" is taken for.
LEFT_OUT = {"SA01", "ES01", "RT02", "SS05"}


def public_names():
    for path in MODULES:
        module = skstack if path == "skstack" else getattr(skstack, path.rpartition(".")[2])
        for name in module.__all__:
            value = getattr(module, name)
            yield f"{path}.{name}", value, None
            if inspect.isclass(value):
                for method, function in inspect.getmembers(value, callable):
                    own = (getattr(function, "__module__", None) or "").startswith("skstack")
                    if own and not method.startswith("_"):
                        yield f"{path}.{name}.{method}", value, method


def left_out(owner, method):
    """Codes of what a docstring may lack because another one says it."""
    if method is not None:
        extra = {"EX01"}
        hooks = next((base for base in (Recipe, NumericEmbedding) if issubclass(owner, base)), None)
        if hooks is not None and owner is not hooks and hasattr(hooks, method):
            extra |= {"PR01", "RT01"}  # "See `Recipe.build`."
        return extra
    # The fields of a result are its attributes; numpydoc reads those of ``__new__``.
    fields = dataclasses.is_dataclass(owner) or "__new__" in vars(owner)
    return {"PR01", "PR02"} if fields else set()


NAMES = {name: left_out(owner, method) for name, owner, method in public_names()}


@pytest.mark.parametrize("name", NAMES)
def test_public_docstrings_follow_numpydoc(name):
    errors = validate(name)["errors"]
    assert [error for error in errors if error[0] not in LEFT_OUT | NAMES[name]] == []
