"""The core uses no clock, no randomness, and nothing outside its arguments."""

import ast
from typing import Any

# Impure calls of otherwise pure modules, and built-in input and output.
CLOCK_AND_RANDOM_CALLS = {"now", "utcnow", "today", "uuid1", "uuid4"}
IO_CALLS = {"open", "print", "input", "breakpoint", "exec", "eval", "__import__"}


def test_the_core_is_pure(core_modules: Any) -> None:
    wrong = []
    for where, node in ((each.name, node) for each in core_modules for node in ast.walk(each.tree)):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith | ast.Global):
            wrong.append(f"{where}, line {node.lineno}: {type(node).__name__}")
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            known = CLOCK_AND_RANDOM_CALLS if isinstance(node.func, ast.Attribute) else IO_CALLS
            if name in known:
                wrong.append(f"{where}, line {node.lineno}: {name}()")
    assert not wrong
