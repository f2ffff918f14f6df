"""Public docstrings follow numpydoc."""

import ast
import dataclasses
import inspect
import re

import pytest
from numpydoc.docscrape import NumpyDocString
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
    # The fields of a result are its attributes.
    return {"PR01", "PR02"} if dataclasses.is_dataclass(owner) else set()


NAMES = {name: left_out(owner, method) for name, owner, method in public_names()}
FUNCTIONS = {
    name: owner if method is None else getattr(owner, method)
    for name, owner, method in public_names()
}


@pytest.mark.parametrize("name", NAMES)
def test_public_docstrings_follow_numpydoc(name):
    errors = validate(name)["errors"]
    assert [error for error in errors if error[0] not in LEFT_OUT | NAMES[name]] == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_documented_parameters_and_defaults_are_those_of_the_signature(name):
    sections = NumpyDocString(inspect.getdoc(FUNCTIONS[name]))
    signature = inspect.signature(FUNCTIONS[name]).parameters
    listed = [
        (each.strip(" *"), kind)
        for names, kind, _ in sections["Parameters"]
        for each in names.split(",")
    ]
    if not listed:
        return
    assert [each for each, _ in listed] == [each for each in signature if each != "self"]
    for each, kind in listed:
        default, (_, has_default, told) = signature[each].default, kind.partition("default=")
        if kind in ("None", "object") or dataclasses.is_dataclass(FUNCTIONS[name]):
            continue  # what is ignored, "as in" another function, and made for each object
        assert bool(has_default) == (default is not inspect.Parameter.empty)
        if has_default:
            told = ast.literal_eval(told)
            assert (told, type(told)) == (default, type(default))


@pytest.mark.parametrize("kind", ["Classifier", "Regressor", "Autoencoder", "MultiTask"])
def test_the_documented_network_is_the_default(kind):
    cls = getattr(skstack, f"Keras{kind}")
    told = re.search(r"None\s+means\s+``(\w+)\(\)``", inspect.getdoc(cls)).group(1)
    assert told == type(cls()._default_recipe()).__name__
