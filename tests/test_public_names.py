"""``import speecheq`` is quick; the names that it offers are those of its docstring, for programs and for mypy."""

import ast
import inspect
import subprocess
import sys

import pytest

import speecheq

HEAVY = ("torch", "numpy", "lhotse", "soundfile", "yaml")


def test_importing_the_package_imports_nothing_heavy_and_is_quick():
    program = f"""if True:
        import sys, time
        started = time.process_time()
        import speecheq
        seconds = time.process_time() - started
        print(seconds < 0.1, [name for name in {HEAVY} if name in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split("\n")[0] == "True []", done.stdout + done.stderr


@pytest.mark.parametrize("name", speecheq.__all__)
def test_a_public_name_is_the_one_of_its_module(name):
    value = getattr(speecheq, name)
    assert value.__name__ == name and value.__module__.startswith("speecheq.") and inspect.getdoc(value)
    assert name in dir(speecheq)


def test_docstring_and_type_checkers_know_the_same_names():
    described = [line.split()[0] for line in speecheq.__doc__.splitlines() if line.startswith("    ")]
    assert described == speecheq.__all__
    (checked,) = (node for node in ast.parse(inspect.getsource(speecheq)).body if isinstance(node, ast.If))
    imports = [(item, node.module) for node in checked.body for item in node.names]
    assert {item.asname: module for item, module in imports} == speecheq._MODULES
    assert all(item.name == item.asname for item, _ in imports)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'speecheq' has no attribute 'Predictors'"):
        speecheq.Predictors
