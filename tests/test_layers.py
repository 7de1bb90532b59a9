"""The floors of the house: imports go downwards only, and the rules that a parser can check."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import thinwire

ROOT = Path(thinwire.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
FLOORS = {
    "errors": 0,
    **dict.fromkeys(("random", "config", "memo", "files", "arrays", "plugins", "optimizers"), 1),
    **dict.fromkeys(("layout", "kernels", "staging", "stores", "theory", "option_strings"), 2),
    **dict.fromkeys(("payloads", "steps", "network", "machines", "step_time"), 3),
    **dict.fromkeys(("wire", "compressors"), 4),
    "memory": 5,
    "exchanges": 6,
    "methods": 7,
    "worker": 8,
    **dict.fromkeys(("simulator", "distributed", "weights"), 9),
    **dict.fromkeys(("experiments", "report", "integrations", "fault_tolerance", "ray"), 10),
    **dict.fromkeys(("frontier", "pareto", "scaling", "shared_memory"), 11),
    "bench": 12,
    **dict.fromkeys(("planner", "evidence"), 13),
    "cli": 14,
    "__main__": 15,
    "__init__": 15,
}
ROOMS = {
    "__init__": -1,
    "jit": 0,
    **dict.fromkeys(("bitpack", "crc32c", "random", "flat"), 1),
    **dict.fromkeys(("reduce", "entropy", "select"), 2),
    **dict.fromkeys(("quantize", "transform"), 3),
    **dict.fromkeys(("sample", "shared_memory", "sparse"), 4),
}
"""The rooms of the kernels, by the same rule."""
# Plain iterators and context managers: no program of a worker passes through them.
ITERATORS = {
    "records",
    "one_torch_thread",
    "private_torch_randomness",
    "shared_model",
    "sharded_within_replicas",
    "told_once",
    "signals_raise",
    "_told",
    "_failing",
    "during",
}
READS_ENVIRONMENT = {"experiments/launch.py", "distributed/addresses.py"}
"""Of processes that are to be started, and where the launcher and gloo were told that others are reached."""
MANY_OPTIONS = {"cli", "methods"}
"""Where a parameter is an option of the user's: of a command, or of a method string."""
MANY_ARGUMENTS = {
    "synchronize", "synchronize_by_store", "fault_tolerant", "compress_ddp", "compress_fsdp",
    "DistributedOptimizer.__init__", "AsyncTraining.__init__",
}  # fmt: skip
"""The entrances for a training script, whose options all have defaults."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def top(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(path: Path) -> Iterator[str]:
    """Full names of everything that a file imports, wherever in it."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{named(path)} has a relative import"
            assert node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes below a function, without those of functions inside it."""
    for child in ast.iter_child_nodes(function):
        yield child
        if not isinstance(child, Function | ast.Lambda):
            yield from own_nodes(child)


@pytest.mark.parametrize("path", FILES, ids=named)
def test_imports_go_downwards_only(path: Path) -> None:
    here = top(path)
    assert here in FLOORS, f"{here} has no floor"
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "thinwire" or parts[1] == here:
            continue
        assert parts[1] in FLOORS, f"{named(path)} imports {name}"
        assert FLOORS[parts[1]] < FLOORS[here], f"{named(path)} imports {name}, which is not below it"


@pytest.mark.parametrize("path", [path for path in FILES if top(path) == "kernels"], ids=named)
def test_rooms_of_kernels_look_downwards_only(path: Path) -> None:
    here = path.relative_to(ROOT / "kernels").with_suffix("").parts[0]
    for name in imported(path):
        parts = name.split(".")
        if parts[:2] == ["thinwire", "kernels"] and parts[2] != here:
            assert ROOMS[parts[2]] < ROOMS[here], f"{named(path)} imports {name}, which is not below it"


@pytest.mark.parametrize("path", [path for path in FILES if top(path) in ("kernels", "report")], ids=named)
def test_kernels_and_report_stand_alone(path: Path) -> None:
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "thinwire":
            allowed = {
                top(path),
                "errors",
                "files",
                *(("random", "config", "memo", "arrays") if top(path) == "kernels" else ()),
            }
            assert parts[1] in allowed, f"{named(path)} imports {name}"
        assert top(path) != "report" or parts[0] != "torch", f"{named(path)} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=named)
def test_only_steps_yields(path: Path) -> None:
    """Elsewhere programs pass on what others yield, and hold no context manager meanwhile."""
    for function in (node for node in ast.walk(parse(path)) if isinstance(node, Function)):
        if function.name in ITERATORS:
            continue
        where = f"{named(path)}: {function.name}"
        nodes = list(own_nodes(function))
        if named(path) != "steps.py":
            assert not any(isinstance(node, ast.Yield) for node in nodes), f"{where} has a bare yield"
        for held in (node for node in nodes if isinstance(node, ast.With | ast.AsyncWith)):
            inside = [node for node in own_nodes(held) if isinstance(node, ast.Yield | ast.YieldFrom)]
            assert not inside, f"{where} yields inside a with statement"


@pytest.mark.parametrize("path", FILES, ids=named)
def test_house_rules(path: Path) -> None:
    text, tree = path.read_text(), parse(path)
    assert len(text.splitlines()) <= 300
    assert "TODO" not in text
    assert ast.get_docstring(tree) or not text.strip(), "the module has no docstring"
    for node in ast.walk(tree):
        if isinstance(node, Function):
            # Transformers calls its callbacks with keywords that grow with its versions.
            foreign = named(path) == "integrations/transformers.py"
            kwarg = node.args.kwarg
            assert kwarg is None or foreign, f"{node.name} takes **{kwarg.arg}"
        if isinstance(node, ast.Name):
            assert node.id != "hasattr", f"line {node.lineno}"
        if isinstance(node, ast.Attribute) and named(path) not in READS_ENVIRONMENT:
            assert node.attr not in ("environ", "getenv", "putenv"), f"line {node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=named)
def test_functions_are_short_and_take_few_arguments(path: Path) -> None:
    """At most 60 lines beside the docstring, and 8 arguments; loops of kernels take arrays and numbers one by one."""
    tree = parse(path)
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    owners = {id(each): f"{node.name}." for node in classes for each in node.body}
    for function in (node for node in ast.walk(tree) if isinstance(node, Function)):
        name = owners.get(id(function), "") + function.name
        text = ast.get_docstring(function, clean=False) or ""
        assert function.end_lineno is not None
        num_lines = function.end_lineno - function.lineno + 1 - len(text.splitlines())
        assert num_lines <= 60, f"{named(path)}: {name} has {num_lines} lines"
        given = [each.arg for each in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
        count = len(given) - (given[:1] in (["self"], ["cls"]))
        if top(path) not in (*MANY_OPTIONS, "kernels") and name not in MANY_ARGUMENTS:
            assert count <= 8, f"{named(path)}: {name} takes {count} arguments"


def test_no_file_imports_itself_by_way_of_others() -> None:
    modules = {str(path.relative_to(ROOT.parent).with_suffix("")).replace("/", "."): path for path in FILES}
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    arrows = {
        name: {each for full in imported(path) if (each := target(full, modules)) != name}
        for name, path in modules.items()
    }
    while arrows:
        free = {name for name, others in arrows.items() if not others & arrows.keys()}
        assert free, f"a circle of imports among {sorted(arrows)}"
        arrows = {name: others for name, others in arrows.items() if name not in free}


def target(full: str, modules: dict[str, Path]) -> str:
    """The file that ``from package import name`` reads, ``full`` being both with a point between."""
    return full if full in modules else full.rpartition(".")[0]


@pytest.mark.parametrize("path", FILES, ids=named)
def test_everything_public_is_documented(path: Path) -> None:
    if any(part.startswith("_") and part != "__init__" for part in path.relative_to(ROOT).with_suffix("").parts):
        return
    check(parse(path), named(path))


def check(parent: ast.AST, where: str) -> None:
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{where}: {node.name} has no docstring"
            if isinstance(node, ast.ClassDef):
                check(node, f"{where}: {node.name}")


def decorators(node: ast.AST) -> set[str]:
    return (
        {each.id for each in node.decorator_list if isinstance(each, ast.Name)} if isinstance(node, Function) else set()
    )


def names_outside_kernels(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if not decorators(child) & {"kernel", "pasted", "helper"}:
            if isinstance(child, ast.Name | ast.Attribute):
                yield child.id if isinstance(child, ast.Name) else child.attr
            yield from names_outside_kernels(child)


def test_only_kernels_call_helpers() -> None:
    """They have no entrance for Python: a call would end the process."""
    trees = {f"thinwire.{named(path)[:-3].replace('/', '.')}": parse(path) for path in FILES if top(path) == "kernels"}
    helpers = {
        (home, node.name)
        for home, tree in trees.items()
        for node in tree.body
        if isinstance(node, Function) and "helper" in decorators(node)
    }
    assert helpers
    for path in FILES:
        here, seen = f"thinwire.{named(path)[:-3].replace('/', '.')}", set(imported(path))
        known = {name for home, name in helpers if home == here or f"{home}.{name}" in seen}
        assert top(path) == "kernels" or not known, f"{named(path)} imports {known}"
        called = known.intersection(names_outside_kernels(parse(path)))
        assert not called, f"{named(path)} calls {called}, which only kernels can"


def test_modules_of_tests_have_names_of_their_own() -> None:
    """They are imported by these alone, so of two with one name a process that runs both has the first one twice."""
    names = [path.name for path in Path(__file__).parent.rglob("*.py") if path.name != "conftest.py"]
    assert len(names) == len(set(names)), sorted({name for name in names if names.count(name) > 1})
