"""Trees compiled to functions, once, when a definition is read; then run on every object.

After `syntax`. Pure. Invariant: what compiles refers only to variables it was told of and to functions that exist; a
run ends after a bounded number of steps, with a value or a `Fault`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from fairlead.api.custom.cel import values
from fairlead.api.custom.cel.functions import FUNCTIONS, METHODS, NAMESPACES, call
from fairlead.api.custom.cel.syntax import SyntaxFault, Tree, parse, unescaped
from fairlead.api.custom.cel.values import TYPES, Fault, Optional

Run = Callable[[dict[str, Any]], Any]
"""From the variables to the value. The variables hold the steps that are left, too, under `STEPS`."""

STEPS = "\x00steps"
MAX_STEPS = 100_000

_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "+": values.add, "-": values.subtract, "*": values.multiply, "/": values.divide, "%": values.modulo,
    "==": values.equal, "!=": lambda a, b: not values.equal(a, b), "in": values.contains, "<": values.less,
    ">": lambda a, b: values.less(b, a), "<=": lambda a, b: not values.less(b, a),
    ">=": lambda a, b: not values.less(a, b),
}  # fmt: skip
_MACROS = frozenset({"all", "exists", "exists_one", "existsOne", "map", "filter"})


class Unknown(ValueError):
    """A variable or a function that does not exist."""


def compiled(text: str, variables: frozenset[str]) -> tuple[Run, frozenset[str]]:
    """The expression, and which of the variables it uses. Raises SyntaxFault or Unknown."""
    compiler = _Compiler()
    try:
        run = compiler.tree(parse(text), variables)
    except RecursionError:
        raise SyntaxFault("expression is nested too deeply") from None
    return run, frozenset(compiler.used & variables)


def run(program: Run, variables: dict[str, Any]) -> Any:
    """The value of a compiled expression. Raises Fault."""
    try:
        return program({**variables, STEPS: [MAX_STEPS]})
    except RecursionError:
        raise Fault("nested too deeply") from None


class _Compiler:
    def __init__(self) -> None:
        self.used: set[str] = set()

    def tree(self, tree: Tree, known: frozenset[str]) -> Run:
        form = tree[0]
        if form == "const":
            value = tree[1]
            return lambda _: value
        if form in _BINARY:
            operation, left, right = _BINARY[form], self.tree(tree[1], known), self.tree(tree[2], known)
            return lambda env: operation(left(env), right(env))
        make: Callable[[Tree, frozenset[str]], Run] = getattr(self, _FORMS[form])
        return make(tree, known)

    def name(self, tree: Tree, known: frozenset[str]) -> Run:
        name = tree[1]
        if name in known:
            self.used.add(name)
            return lambda env: env[name]
        if name in TYPES:
            kind = TYPES[name]
            return lambda _: kind
        raise Unknown(f"undeclared reference to '{name}' (in container '')")

    def both(self, tree: Tree, known: frozenset[str]) -> Run:
        return partial(_junction, self.tree(tree[1], known), self.tree(tree[2], known), False)

    def either(self, tree: Tree, known: frozenset[str]) -> Run:
        return partial(_junction, self.tree(tree[1], known), self.tree(tree[2], known), True)

    def negation(self, tree: Tree, known: frozenset[str]) -> Run:
        inner = self.tree(tree[1], known)
        return lambda env: not values.truth(inner(env))

    def negative(self, tree: Tree, known: frozenset[str]) -> Run:
        inner = self.tree(tree[1], known)
        return lambda env: values.negate(inner(env))

    def choice(self, tree: Tree, known: frozenset[str]) -> Run:
        condition, yes, no = (self.tree(part, known) for part in tree[1:])
        return lambda env: yes(env) if values.truth(condition(env)) else no(env)

    def select(self, tree: Tree, known: frozenset[str]) -> Run:
        inner, name = self.tree(tree[1], known), unescaped(tree[2])
        if tree[3]:
            return lambda env: _optional_member(inner(env), name)
        return lambda env: _member(inner(env), name)

    def index(self, tree: Tree, known: frozenset[str]) -> Run:
        inner, at = self.tree(tree[1], known), self.tree(tree[2], known)
        if tree[3]:
            return lambda env: _optional_item(inner(env), at(env))
        return lambda env: _item(inner(env), at(env))

    def listing(self, tree: Tree, known: frozenset[str]) -> Run:
        parts = [(self.tree(part, known), optional) for part, optional in tree[1]]

        def made(env: dict[str, Any]) -> Any:
            found = []
            for part, optional in parts:
                value = part(env)
                if not optional:
                    found.append(value)
                elif isinstance(value, Optional) and value.there:
                    found.append(value.value)
            return found

        return made

    def mapping(self, tree: Tree, known: frozenset[str]) -> Run:
        parts = [(self.tree(key, known), self.tree(value, known)) for key, value in tree[1]]
        return lambda env: {_key(key(env)): value(env) for key, value in parts}

    def call(self, tree: Tree, known: frozenset[str]) -> Run:
        _, name, target, arguments = tree
        if target is None:
            if name == "has":
                return self.has(arguments, known)
            return self.function(name, [], arguments, known)
        if name in _MACROS and len(arguments) in (2, 3) and arguments[0][0] == "name":
            return self.macro(name, target, arguments, known)
        if target[0] == "name" and target[1] in NAMESPACES and target[1] not in known:
            if target[1] == "cel" and name == "bind":
                raise Unknown("cel.bind is not supported")
            return self.function(f"{target[1]}.{name}", [], arguments, known)
        return self.function(name, [target], arguments, known)

    def function(self, name: str, target: list[Tree], arguments: list[Tree], known: frozenset[str]) -> Run:
        function = (METHODS if target else FUNCTIONS).get(name)
        if function is None:
            raise Unknown(f"undeclared reference to '{name}' (in container '')")
        parts = [self.tree(part, known) for part in (*target, *arguments)]
        return lambda env: call(function, name, [part(env) for part in parts])

    def has(self, arguments: list[Tree], known: frozenset[str]) -> Run:
        if len(arguments) != 1 or arguments[0][0] != "select":
            raise Unknown("invalid argument to has() macro")
        inner, name = self.tree(arguments[0][1], known), unescaped(arguments[0][2])

        def there(env: dict[str, Any]) -> bool:
            value = inner(env)
            if isinstance(value, Optional):
                value = value.value
            if not isinstance(value, dict):
                raise values.no_overload("has", value)
            return name in value

        return there

    def macro(self, name: str, target: Tree, arguments: list[Tree], known: frozenset[str]) -> Run:
        bound = arguments[0][1]
        within = known | {bound}
        source = self.tree(target, known)
        bodies = [self.tree(body, within) for body in arguments[1:]]
        if len(bodies) == 2 and name != "map":
            raise Unknown(f"macro {name} takes a variable and one expression")

        def each(env: dict[str, Any]) -> Any:
            items = source(env)
            if not isinstance(items, list | dict):
                raise values.no_overload(name, items)
            steps = env[STEPS]
            inner = dict(env)
            for item in list(items):
                steps[0] -= 1
                if steps[0] < 0:
                    raise Fault("operation cancelled: actual cost limit exceeded")
                inner[bound] = item
                yield item, inner

        return partial(_MACRO_RUNS[name], each, bodies)


_FORMS = {"name": "name", "&&": "both", "||": "either", "!": "negation", "neg": "negative", "?": "choice",
          "select": "select", "index": "index", "list": "listing", "map": "mapping", "call": "call"}  # fmt: skip


def _junction(left: Run, right: Run, decisive: bool, env: dict[str, Any]) -> bool:
    """`&&` (decided by false) and `||` (by true): a fault on one side does not matter if the other side decides."""
    try:
        if values.truth(left(env)) is decisive:
            return decisive
    except Fault:
        if values.truth(right(env)) is decisive:
            return decisive
        raise
    return values.truth(right(env))


def _quantified(each: Any, bodies: list[Run], env: dict[str, Any], *, decisive: bool) -> bool:
    fault: Fault | None = None
    for _, inner in each(env):
        try:
            if values.truth(bodies[0](inner)) is decisive:
                return decisive
        except Fault as error:
            fault = error
    if fault is not None:
        raise fault
    return not decisive


def _exactly_one(each: Any, bodies: list[Run], env: dict[str, Any]) -> bool:
    return sum(values.truth(bodies[0](inner)) for _, inner in each(env)) == 1


def _mapped(each: Any, bodies: list[Run], env: dict[str, Any]) -> list[Any]:
    if len(bodies) == 1:
        return [bodies[0](inner) for _, inner in each(env)]
    return [bodies[1](inner) for _, inner in each(env) if values.truth(bodies[0](inner))]


def _filtered(each: Any, bodies: list[Run], env: dict[str, Any]) -> list[Any]:
    return [item for item, inner in each(env) if values.truth(bodies[0](inner))]


_MACRO_RUNS: dict[str, Callable[..., Any]] = {
    "all": partial(_quantified, decisive=False),
    "exists": partial(_quantified, decisive=True),
    "exists_one": _exactly_one,
    "existsOne": _exactly_one,
    "map": _mapped,
    "filter": _filtered,
}


def _member(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        if name not in value:
            raise Fault(f"no such key: {name}")
        return value[name]
    if isinstance(value, Optional):
        return _optional_member(value, name)
    raise values.no_overload("select", value)


def _optional_member(value: Any, name: str) -> Optional:
    if isinstance(value, Optional):
        if not value.there:
            return value
        value = value.value
    if not isinstance(value, dict):
        raise values.no_overload("select", value)
    return Optional(True, value[name]) if name in value else Optional()


def _item(value: Any, at: Any) -> Any:
    if isinstance(value, list) and values.is_int(at):
        if not 0 <= at < len(value):
            raise Fault(f"index out of bounds: {at}")
        return value[at]
    if isinstance(value, dict) and isinstance(at, str):
        return _member(value, at)
    if isinstance(value, Optional):
        return _optional_item(value, at)
    raise values.no_overload("_[_]", value, at)


def _optional_item(value: Any, at: Any) -> Optional:
    if isinstance(value, Optional):
        if not value.there:
            return value
        value = value.value
    try:
        return Optional(True, _item(value, at))
    except Fault:
        return Optional()


def _key(key: Any) -> Any:
    if not isinstance(key, str | int):
        raise values.no_overload("map", key)
    return key
