"""Steps in the crew's own code: it calls the scheduler wherever CPython may switch threads.

CPython switches threads, and raises asynchronous exceptions, as a function begins, after each call,
and as a loop goes round. So the source of the crew's modules is compiled once more, with a call of
`step` at these places. The functions stay the same objects. They have the other code as long as a
world runs.
"""

import ast
import builtins
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

_MODULES = (
    "actors.actor",
    "actors.databases.base",
    "actors.databases.child.connection",
    "actors.databases.child.claims",
    "actors.databases.child.host",
    "actors.databases.child.requests",
    "actors.databases.executor",
    "actors.dispatch.admission",
    "actors.dispatch.batch",
    "actors.dispatch.deadlocks",
    "actors.dispatch.dispatcher",
    "actors.dispatch.aborts",
    "actors.dispatch.expiry",
    "actors.dispatch.job",
    "actors.dispatch.lane",
    "actors.dispatch.quarantine",
    "actors.dispatch.roster",
    "actors.dispatch.stealing",
    "actors.dispatch.timers",
    "actors.dispatch.worker_handle",
    "actors.inbox",
    "actors.ref",
    "actors.replies.checkout",
    "actors.replies.interactive",
    "actors.replies.reply",
    "actors.replies.session",
    "actors.replies.stream",
    "actors.system.waiting",
    "actors.worker",
    "supervisor",
)
_OUTSIDE = frozenset({"_actor_loop"})
"""The function outside of the guard around a thread's whole life.

An exception there goes to CPython.
"""


class _Stepper(ast.NodeTransformer):
    """Puts the calls in."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        return _step(node, node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.body = [self.visit(each) for each in node.body]
        if node.name not in _OUTSIDE:
            has_text = isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)
            node.body.insert(int(has_text), _statement(node))
        return node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return node  # there is no event loop in a world

    def visit_For(self, node: ast.For) -> ast.AST:
        self.generic_visit(node)
        node.body.insert(0, _statement(node))
        return node

    def visit_While(self, node: ast.While) -> ast.AST:
        self.generic_visit(node)
        node.body.insert(0, _statement(node))
        return node

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        self.generic_visit(node)
        node.ifs.insert(0, _step(ast.Constant(True), node.target))
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.body = [self.visit(each) if isinstance(each, ast.FunctionDef) else each for each in node.body]
        return node


def _step(value: ast.expr, place: Any) -> ast.Call:
    call = ast.Call(ast.Name("__step__", ast.Load()), [value], [])
    return ast.fix_missing_locations(ast.copy_location(call, place))


def _statement(place: Any) -> ast.Expr:
    return ast.copy_location(ast.Expr(_step(ast.Constant(None), place)), place)


class _Codes:
    """The functions of the modules, with their two codes; made when the first world needs them."""

    pairs: list[tuple[FunctionType, CodeType, CodeType]] | None = None


def _pairs() -> list[tuple[FunctionType, CodeType, CodeType]]:
    if _Codes.pairs is None:
        _Codes.pairs = [pair for name in _MODULES for pair in _pairs_of(import_module(name))]
    return _Codes.pairs


def _pairs_of(module: Any) -> Iterator[tuple[FunctionType, CodeType, CodeType]]:
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    stepper = _Stepper()
    tree.body = [
        stepper.visit(node) if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else node for node in tree.body
    ]
    stepped = {
        (code.co_qualname, code.co_firstlineno): code for code in _codes_in(compile(tree, module.__file__, "exec"))
    }
    for function in _functions_of(module):
        code = stepped.get((function.__code__.co_qualname, function.__code__.co_firstlineno))
        if code is not None:
            yield function, function.__code__, code


def _codes_in(code: CodeType) -> Iterator[CodeType]:
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield each
            yield from _codes_in(each)


def _functions_of(owner: Any) -> Iterator[FunctionType]:
    name = getattr(owner, "__module__", owner.__name__)
    for value in list(vars(owner).values()):
        if isinstance(value, type):
            if value.__module__ == name and value is not owner:
                yield from _functions_of(value)
            continue
        inner = getattr(value, "__func__", value)
        for each in (inner, *(getattr(inner, part, None) for part in ("fget", "fset", "__wrapped__"))):
            if isinstance(each, FunctionType) and each.__module__ == name:
                yield each


@contextmanager
def stepping() -> Iterator[None]:
    """Let the crew's code call `step` (see `stage`) for as long as the block runs."""
    pairs = _pairs()
    builtins.__step__ = _nothing  # type: ignore[attr-defined]
    for function, _, stepped in pairs:
        function.__code__ = stepped
    try:
        yield
    finally:
        for function, plain, _ in pairs:
            function.__code__ = plain


def place() -> FrameType:
    """Return the innermost call of the crew's code in the current task."""
    frame = sys._getframe(1)
    while frame.f_back is not None and not str(frame.f_globals.get("__name__")).startswith(("actors.", "supervisor")):
        frame = frame.f_back
    return frame


def _nothing(value: Any) -> Any:
    return value
