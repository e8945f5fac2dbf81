"""Modules are small, have specific names, and have docstrings."""

import ast
import importlib
import inspect
from collections.abc import Iterator
from typing import Any

# Modules with these vague names collect unrelated code.
VAGUE_NAMES = {"util", "utils", "helper", "helpers", "common", "manager", "managers", "base", "misc"}
LINES_MAX = 500


def test_module_names_are_specific(modules: Any) -> None:
    def words(name: str) -> set[str]:
        return {word for part in name.split(".") for word in part.strip("_").split("_")}

    assert not [module.name for module in modules if words(module.name) & VAGUE_NAMES]


def test_modules_are_small(modules: Any) -> None:
    assert not [(module.name, module.lines) for module in modules if module.lines > LINES_MAX]


def _public(tree: ast.Module) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Return the public functions and classes of a module, and the public methods of these classes."""

    def public(name: str) -> bool:
        return not name.startswith("_")

    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and public(node.name):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and public(inner.name):
                        yield f"{node.name}.{inner.name}", inner


def _explained_elsewhere(module: Any, name: str) -> bool:
    """Whether a method overrides one with a docstring, possibly in another library."""
    owner, _, method = name.partition(".")
    return bool(method and inspect.getdoc(getattr(getattr(importlib.import_module(module.name), owner), method)))


def test_everything_public_has_a_docstring(modules: Any) -> None:
    missing = [
        f"{module.name}, line {node.lineno}: {name}"
        for module in modules
        for name, node in _public(module.tree)
        if not ast.get_docstring(node) and not _explained_elsewhere(module, name)
    ]
    missing += [module.name for module in modules if not ast.get_docstring(module.tree)]
    assert not missing
