"""The tree: who may import whom, what is documented, what is declared."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROGRAMMING = ("benchmarks", "tools", "tests")
PACKAGES = ("fedenhance", "fed", *PROGRAMMING)
PROGRAMS = sorted(ROOT.glob("*.py"))
SOURCES = PROGRAMS + [
    path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))
]
# What a layer must not know. fed knows nothing of audio; nobody but fed knows Flower.
# "recipes" and "hparams" at the top are links; the names of modules are fedenhance's.
FORBIDDEN = {
    "fedenhance": {"fed", "recipes", "flwr", "ray", *PROGRAMMING},
    "fed": {"fedenhance", "recipes", "soundfile", "torchaudio", *PROGRAMMING},
}
SHARED = ("fedenhance.based_yaml", "fedenhance.run_folder")
"""What both use: how YAML is read, and what is kept in a run's folder."""
# The rooms of fedenhance/: each may import those that come before it, and itself.
ROOMS = (
    {"run_folder"},
    {"networks", "objectives"},
    {"data"},
    {"training", "recipes"},
    {"recognition"},
    {"reports"},
    {"deploy"},
    {"commands"},
)
# Where the distribution is not named as the module.
DISTRIBUTIONS = {
    "Crypto": "pycryptodome",
    "espeakng_loader": "espeakng-loader",
    "httpx": "flwr",
    "ruamel": "hyperpyyaml",
    "uvicorn": "flwr",
    "yaml": "hyperpyyaml",
}


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def imports(path, top_level=False):
    """Lists the dotted modules that a file imports, at its top level or anywhere."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else ast.walk(tree)
    modules = []
    for node in nodes:
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} has a relative import"
            modules += [f"{node.module}.{alias.name}" for alias in node.names]
    return modules


def tops(modules):
    return {module.split(".")[0] for module in modules}


def sources_of(package):
    return [path for path in SOURCES if path.is_relative_to(ROOT / package)]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_arrows(package):
    for path in sources_of(package):
        own = [m for m in imports(path) if not m.startswith(SHARED)]
        crossed = tops(own) & FORBIDDEN[package]
        assert not crossed, f"{name_of(path)} must not import {sorted(crossed)}"


def test_recipes_borrow_data_tools_alone():
    for path in sources_of("fedenhance/recipes"):
        borrowed = rooms_in(imports(path))
        assert borrowed <= {"data", "recipes"}, f"{name_of(path)} imports {borrowed}"


def rooms_in(modules):
    """Lists the rooms of fedenhance/ that modules lie in."""
    parts = [m.split(".") for m in modules if m.startswith("fedenhance.")]
    return {room for _, room, *_ in parts if (ROOT / "fedenhance" / room).is_dir()}


def test_rooms_look_down_alone():
    below = set()
    for level in ROOMS:
        for room in level:
            for path in sources_of(f"fedenhance/{room}"):
                above = rooms_in(imports(path)) - below - {room}
                assert not above, f"{name_of(path)} must not import {sorted(above)}"
        below |= level
    folders = {path.parent.name for path in (ROOT / "fedenhance").glob("*/__init__.py")}
    assert below == folders


@pytest.mark.parametrize("program", PROGRAMS, ids=name_of)
def test_programs_work_without_fed(program):
    """Without fed/ a centralised recipe still trains: no program needs it to start."""
    assert not tops(imports(program, top_level=True)) & {"fed", "flwr", "ray"}


def test_importing_fed_and_fedenhance_leaves_the_other_out():
    """The arrows hold for what is loaded as well as for what is written."""
    for package, other in (("fed", "fedenhance"), ("fedenhance", "fed")):
        code = (
            "import importlib, pkgutil, sys, " + package + " as p\n"
            "for m in pkgutil.walk_packages(p.__path__, p.__name__ + '.'):\n"
            "    importlib.import_module(m.name)\n"
            f"other = {{m for m in sys.modules if m.split('.')[0] == {other!r}}}\n"
            f"other = {{m for m in other if not m.startswith({SHARED!r})}}\n"
            f"sys.exit(bool(other - {{'fedenhance'}}))\n"
        )
        result = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert result.returncode == 0, f"{package} loads {other}: {result.stderr}"
        assert result.stdout == "", f"importing {package} prints"


def test_every_folder_of_python_is_a_documented_package():
    for folder in {path.parent for path in SOURCES} - {ROOT}:
        init = folder / "__init__.py"
        assert init.exists(), f"{name_of(folder)} has no __init__.py"
        docstring = ast.get_docstring(ast.parse(init.read_text()))
        assert docstring, f"{name_of(init)} does not say what the package is for"


def test_every_module_says_what_it_is_for():
    for path in SOURCES:
        assert ast.get_docstring(ast.parse(path.read_text())), name_of(path)


def body_length(function):
    """Counts a function's lines, its docstring aside."""
    first = function.body[0]
    documented = ast.get_docstring(function, clean=False) is not None
    docstring = first.end_lineno - first.lineno + 1 if documented else 0
    return function.end_lineno - function.lineno + 1 - docstring


def test_functions_fit_on_a_screen():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = body_length(node)
                where = f"{name_of(path)}:{node.lineno} {node.name}"
                assert lines <= 60, f"{where} has {lines} lines"


def test_files_can_be_read_at_a_sitting():
    for path in SOURCES:
        lines = len(path.read_text().splitlines())
        assert lines <= 450, f"{name_of(path)} has {lines} lines"


HEADERS = {"Arguments", "Returns", "Raises", "Yields", "Example", "Attributes"}


def telling_lines(path):
    """Lists (number, line) without blanks, imports, and headers of docstrings."""
    lines = enumerate(map(str.strip, path.read_text().splitlines()), start=1)
    return [
        (number, line)
        for number, line in lines
        if line.strip("-") and line not in HEADERS
        if not line.startswith(("import ", "from "))
    ]


def copies(paths, length):
    """Names the first of so many consecutive lines that stand in two places."""
    seen, found = {}, []
    for path in paths:
        lines = telling_lines(path)
        for first in range(len(lines) - length + 1):
            run = tuple(line for _, line in lines[first : first + length])
            place = f"{path}:{lines[first][0]}"
            if run in seen:
                found.append((seen[run], place))
            seen.setdefault(run, place)
    return found


def test_no_eight_lines_stand_in_two_places():
    paths = [path for path in SOURCES if not path.is_relative_to(ROOT / "tests")]
    assert not copies([path.relative_to(ROOT) for path in paths], length=8)


def test_a_copy_is_noticed(tmp_path):
    lines = [f"x{i} = {i}" for i in range(8)]
    (tmp_path / "a.py").write_text("\n".join(["import os", *lines]))
    (tmp_path / "b.py").write_text("\n\n".join(["if y:", *(f"  {x}" for x in lines)]))
    paths = [tmp_path / "a.py", tmp_path / "b.py"]
    assert copies(paths, length=8) == [(f"{paths[0]}:2", f"{paths[1]}:3")]
    assert not copies(paths, length=9)


def requirements(name):
    lines = (ROOT / name).read_text().splitlines()
    stripped = [line.partition("#")[0].strip() for line in lines]
    return [line for line in stripped if line]


def test_pyproject_and_requirements_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["dependencies"] == requirements("requirements.txt")


def test_what_is_always_imported_is_required():
    """An optional package is imported where it is used, never at a module's top."""
    lines = requirements("requirements.txt")
    required = {re.split(r"[<>=\[]", line)[0] for line in lines}
    own = {*PACKAGES, *(program.stem for program in PROGRAMS)}
    for path in SOURCES:
        if path.relative_to(ROOT).parts[0] in ("tests", "benchmarks"):
            continue
        third_party = tops(imports(path, top_level=True)) - own
        third_party -= sys.stdlib_module_names
        named = {DISTRIBUTIONS.get(module, module) for module in third_party}
        assert named <= required, f"{name_of(path)}: {sorted(named - required)}"


@pytest.mark.parametrize(
    "linter",
    [
        ["ruff", "check", "--no-cache"],
        ["ruff", "format", "--no-cache", "--diff"],
        ["yamllint", "--strict"],
    ],
    ids=" ".join,
)
def test_linters_find_nothing(linter):
    if shutil.which(linter[0], path=Path(sys.executable).parent) is None:
        pytest.skip(f"{linter[0]} is not installed")
    result = subprocess.run(
        [sys.executable, "-m", *linter, "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_scripts_of_the_shell_parse():
    for script in (
        "run",
        ".ci/run",
        "deploy/up",
        "deploy/certificates",
        "deploy/common.sh",
    ):
        subprocess.run(["bash", "-n", ROOT / script], check=True, timeout=60)
