"""The import rules of the house, read off the syntax trees of the package.

Data flow one way, through stations in order; a module may import what lies before it. Imports
inside functions and under TYPE_CHECKING count as well: a dependency is a dependency.
"""

import ast
import subprocess
import sys
import time
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "fedmedlora"
PACKAGE = "fedmedlora"

LEAVES = {
    "canonical", "chain", "durable", "errors", "faults", "orphans", "schema", "seeds",
    "strict_yaml",
}  # fmt: skip
#: Module or station -> what of ours it may import, besides itself. What is not listed (study, cli,
#: ...) stands above the stations: it may import all of them, and none of them may import it.
MAY_IMPORT = {
    "errors": set(),
    "schema": {"errors"},
    "durable": {"errors"},
    "canonical": set(),
    "chain": {"canonical", "durable", "errors"},
    "seeds": {"errors"},
    "faults": set(),
    "orphans": set(),
    "strict_yaml": set(),
    "corpus": LEAVES,
    "tasks": LEAVES | {"corpus"},
    "model": LEAVES | {"corpus", "tasks"},
    "aggregation": {"errors"},
    "privacy": LEAVES,
    "federation": LEAVES | {"corpus", "tasks", "model", "aggregation", "privacy"},
    "evaluation": LEAVES | {"corpus", "tasks"},
    "report": LEAVES | {"corpus", "tasks", "evaluation"},
}
#: The program's entry: nobody else imports it.
ENTRY = {"cli", "__main__"}

HEAVY = {
    "torch", "flwr", "ray", "transformers", "tokenizers", "peft", "trl", "accelerate", "datasets",
    "safetensors", "bitsandbytes", "opacus",
}  # fmt: skip
MUST_NOT = {
    "durable": HEAVY | {"numpy", "pydantic"},
    "canonical": HEAVY | {"numpy", "pydantic"},
    "chain": HEAVY | {"numpy", "pydantic"},
    "orphans": HEAVY | {"numpy", "pydantic"},
    "errors": HEAVY | {"numpy", "pydantic"},
    "schema": HEAVY | {"numpy", "pydantic"},
    "corpus": HEAVY,
    "tasks": HEAVY,
    "model": {"flwr", "ray"},
    "privacy": HEAVY - {"opacus"},
    "evaluation": HEAVY,
    "report": HEAVY,
}
#: Arithmetic on arrays needs no more than this.
ARITHMETIC = {
    "__future__", "abc", "collections", "dataclasses", "functools", "itertools", "math", "numpy",
    "types", "typing",
}  # fmt: skip
#: Names that read or write files, were arithmetic to call them.
FILES = {
    "open", "load", "loadtxt", "genfromtxt", "fromfile", "memmap", "save", "savez",
    "savez_compressed", "savetxt", "tofile", "read_text", "read_bytes", "write_text", "write_bytes",
}  # fmt: skip


def modules_of(package_folder):
    """Dotted name without the package -> (path, tree)."""
    found = {}
    for path in sorted(package_folder.rglob("*.py")):
        parts = path.relative_to(package_folder).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path, ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports_of(name, *, is_package, tree, known):
    """(full dotted target, names taken from it) of every import; relative ones made absolute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ()
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = [PACKAGE, *name.split(".")] if name else [PACKAGE]
                up = node.level - 1 if is_package else node.level
                base = ".".join([*parts[: len(parts) - up], *([base] if base else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                if inner.removeprefix(f"{PACKAGE}.") in known and inner.startswith(f"{PACKAGE}."):
                    yield inner, ()
                else:
                    yield base, (alias.name,)


def ours(target):
    return target == PACKAGE or target.startswith(f"{PACKAGE}.")


def violations(package_folder):
    """Every broken rule, one sentence each."""
    modules = modules_of(package_folder)
    known = set(modules)
    found = []
    graph = {}
    for name, (path, tree) in modules.items():
        station = name.split(".")[0]
        is_package = path.name == "__init__.py"
        edges = set()
        for target, taken in imports_of(name, is_package=is_package, tree=tree, known=known):
            top = target.split(".")[0]
            if ours(target):
                inner = target.removeprefix(PACKAGE).removeprefix(".")
                edges.add(inner)
                other = inner.split(".")[0]
                found += order_faults(name, station, other)
                # A private name belongs to its module, a private module to its station.
                hidden = [part for part in taken if is_private(part)]
                if other != station:
                    hidden += [part for part in inner.split(".") if is_private(part)]
                found += [f"{name} takes the private {part} of {inner}" for part in hidden]
            elif top in MUST_NOT.get(station, ()):
                found.append(f"{name} imports {top}, which {station} must not")
            elif station == "aggregation" and top not in ARITHMETIC:
                found.append(f"{name} imports {top}: aggregation is arithmetic on arrays")
        found += private_uses(name, tree, known)
        if station == "aggregation":
            found += file_uses(name, tree)
        graph[name] = edges - {name}
    return found + circles(graph)


def order_faults(name, station, other):
    if other in ENTRY and name not in ENTRY:
        return [f"{name} imports {other}: that is the entry, nobody imports it"]
    allowed = MAY_IMPORT.get(station)
    if allowed is None or other in allowed or other in (station, ""):
        return []
    return [f"{name} imports {other}: {station} may import {', '.join(sorted(allowed)) or 'none'}"]


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def private_uses(name, tree, known):
    """`module._name`, where module is one of ours."""
    bound = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and ours(node.module or ""):
            inner = (node.module or "").removeprefix(PACKAGE).removeprefix(".")
            bound |= {
                alias.asname or alias.name
                for alias in node.names
                if ".".join(part for part in (inner, alias.name) if part) in known
            }
        elif isinstance(node, ast.Import):
            bound |= {alias.asname for alias in node.names if ours(alias.name) and alias.asname}
    return [
        f"{name} takes the private {node.attr} of {node.value.id}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and is_private(node.attr)
        and isinstance(node.value, ast.Name)
        and node.value.id in bound
    ]


def file_uses(name, tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else None
            called = node.func.attr if isinstance(node.func, ast.Attribute) else called
            if called in FILES:
                yield f"{name} calls {called}: aggregation reads and writes no files"


def circles(graph):
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return [f"circle: {' imports '.join(reversed(error.args[1]))}"]
    return []


def test_the_package_keeps_every_import_rule():
    assert violations(SOURCE) == []


def test_every_part_of_the_package_was_read():
    read = set(modules_of(SOURCE))
    assert {"cli", "schema", "corpus.jsonl", "model.adapter", "aggregation.weights"} <= read
    assert len(read) == len(list(SOURCE.rglob("*.py")))


def toy(tmp_path, files):
    """A tiny package that keeps the rules, changed by ``files``."""
    base = {
        "__init__.py": "",
        "errors.py": "",
        "schema.py": "from fedmedlora.errors import Wrong",
        "corpus/__init__.py": "",
        "corpus/read.py": "from fedmedlora.schema import Document",
        "tasks/__init__.py": "",
        "tasks/build.py": "from fedmedlora.corpus.read import read",
        "model/__init__.py": "",
        "model/train.py": "import torch\nfrom fedmedlora.tasks import build",
        "aggregation/__init__.py": "",
        "aggregation/average.py": "import numpy as np\nfrom fedmedlora.errors import Wrong",
        "federation/__init__.py": "",
        "federation/run.py": "import flwr\nfrom fedmedlora.model.train import fit",
        "evaluation/__init__.py": "",
        "evaluation/score.py": "from fedmedlora.corpus.read import read",
        "report/__init__.py": "",
        "study.py": "from fedmedlora.federation.run import run",
        "cli.py": "from fedmedlora import study",
    }
    folder = tmp_path / PACKAGE
    for name, text in {**base, **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def test_a_tree_that_keeps_the_rules_passes(tmp_path):
    assert violations(toy(tmp_path, {})) == []


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("schema.py", "import fedmedlora.corpus.read", "schema imports corpus"),
        ("schema.py", "import numpy", "schema imports numpy"),
        ("corpus/read.py", "from fedmedlora.tasks import build", "corpus.read imports tasks"),
        ("corpus/read.py", "def f():\n    import torch", "corpus.read imports torch"),
        ("corpus/read.py", "from ..tasks.build import x", "corpus.read imports tasks"),
        ("tasks/build.py", "import flwr.app", "tasks.build imports flwr"),
        ("evaluation/score.py", "from transformers import x", "evaluation.score imports transf"),
        ("evaluation/score.py", "from fedmedlora.model.train import x", "score imports model"),
        ("report/page.py", "import torch.nn", "report.page imports torch"),
        ("model/train.py", "from fedmedlora.federation.run import x", "imports federation"),
        ("model/train.py", "from fedmedlora import federation", "imports federation"),
        ("model/train.py", "from fedmedlora.study.run import x", "model.train imports study"),
        (
            "model/train.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import flwr",
            "model.train imports flwr",
        ),
        ("aggregation/average.py", "import flwr", "aggregation.average imports flwr"),
        ("aggregation/average.py", "from pathlib import Path", "imports pathlib"),
        ("aggregation/average.py", "from fedmedlora.schema import x", "average imports schema"),
        ("aggregation/average.py", "def f(p):\n    return open(p)", "calls open"),
        ("aggregation/average.py", "import numpy as np\nx = np.load('x')", "calls load"),
        ("federation/run.py", "from fedmedlora.evaluation.score import x", "imports evaluation"),
        ("study.py", "from fedmedlora.corpus.read import _read", "private _read"),
        ("study.py", "from fedmedlora.corpus import read\nread._f()", "private _f"),
        ("study.py", "import fedmedlora.corpus.read as r\nr._f()", "private _f"),
        ("study.py", "import fedmedlora.corpus._inner", "private _inner"),
        ("study.py", "from fedmedlora.cli import app", "study imports cli"),
        ("corpus/other.py", "from .read import _read", "private _read"),
    ],
)
def test_each_broken_rule_is_told(tmp_path, file, text, told):
    found = violations(toy(tmp_path, {file: text}))
    assert any(told in one for one in found), found


def test_a_circle_is_told(tmp_path):
    files = {
        "corpus/a.py": "from fedmedlora.corpus.b import x",
        "corpus/b.py": "from fedmedlora.corpus import c",
        "corpus/c.py": "def f():\n    from fedmedlora.corpus.a import x",
    }
    [told] = violations(toy(tmp_path, files))
    assert told.startswith("circle: ")
    assert {"corpus.a", "corpus.b", "corpus.c"} <= set(told.split())


def loaded_after(names):
    """What a fresh interpreter has in ``sys.modules`` after importing these modules."""
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\n"
    code += "print(' '.join(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", code, *names], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def all_of(*stations):
    names = [name for name in modules_of(SOURCE) if name.split(".")[0] in stations]
    return [f"{PACKAGE}.{name}" for name in names]


def test_what_needs_no_model_loads_none_however_indirectly():
    names = all_of(
        "corpus", "tasks", "evaluation", "report", "aggregation", "privacy", "schema", "errors"
    )
    assert not loaded_after(names) & HEAVY


def test_scores_are_made_again_and_shown_without_a_model():
    assert not loaded_after([f"{PACKAGE}.study.rescoring", f"{PACKAGE}.study.tables"]) & HEAVY


def test_asking_an_api_model_loads_no_model_of_our_own():
    assert not loaded_after([f"{PACKAGE}.model.chat"]) & HEAVY


def test_the_command_line_loads_nothing_before_it_knows_the_command():
    heavy = HEAVY | {"numpy", "scipy", "pydantic", "yaml", "bioc", "rich", "lxml"}
    assert not loaded_after([f"{PACKAGE}.cli"]) & heavy


def test_help_is_there_within_half_a_second():
    def seconds():
        begun = time.perf_counter()
        command = [sys.executable, "-m", PACKAGE, "--help"]
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - begun

    # The best of several: other work on the machine is not the program's.
    assert min(seconds() for _ in range(4)) < 0.5
