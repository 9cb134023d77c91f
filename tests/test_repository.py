"""The project's own files agree: sessions, README, versions, pins, tracked files, light imports."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import repro
from repro.paths import PROJECT_ROOT

MIB = 2**20
# Data sets, weights and checkpoints: none of them may be redistributed, or belongs into git.
FORBIDDEN_KINDS = (
    *(".gguf", ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".h5", ".pkl"),
    *(".dat", ".inter", ".npy", ".npz", ".gz", ".zip", ".tar", ".zst"),
)


def read(name: str) -> str:
    return (PROJECT_ROOT / name).read_text(encoding="utf-8")


def project_table() -> dict:
    return tomllib.loads(read("pyproject.toml"))["project"]


def sessions() -> dict[str, str | None]:
    """Session name -> docstring, read from the source because the tests' environment holds no nox."""
    functions = [node for node in ast.parse(read("noxfile.py")).body if isinstance(node, ast.FunctionDef)]
    return {
        node.name: ast.get_docstring(node)
        for node in functions
        if any("session" in ast.unparse(decorator) for decorator in node.decorator_list)
    }


def pins() -> dict[str, str]:
    """Package -> exact version, from constraints.txt."""
    lines = [line for line in read("constraints.txt").splitlines() if line and not line.startswith("#")]
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), f"not an exact pin: {line!r}"
    return {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}


def declared_requirements() -> list[Requirement]:
    """Every dependency of pyproject.toml, the extras' included."""
    table = project_table()
    extras = table["optional-dependencies"].values()
    return [Requirement(text) for group in (table["dependencies"], *extras) for text in group]


def imported_modules(path: Path) -> set[str]:
    """Top-level names of all modules that a source file imports, relative imports left out."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def tracked_files() -> list[str]:
    command = ["git", "-C", str(PROJECT_ROOT), "ls-files", "-z"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout, or no git here")
    names = [name for name in answer.stdout.split("\0") if name and (PROJECT_ROOT / name).is_file()]
    if not names:
        pytest.skip("nothing is tracked here")
    return names


def test_every_session_explains_itself_in_one_line() -> None:
    found = sessions()
    assert {"table1", "table2", "figure2", "report", "tests", "lint"} <= set(found)
    for name, docstring in found.items():
        assert docstring, f"session {name} has no docstring"
        assert "\n" not in docstring, f"session {name}: `nox -l` shows the first line only"


def test_readme_documents_exactly_the_sessions_there_are() -> None:
    if not (PROJECT_ROOT / "README.md").exists():
        pytest.skip("there is no README.md")
    documented = set(re.findall(r"\bnox -s ([a-z0-9_]+)", read("README.md")))
    assert documented == set(sessions())


def test_one_version_everywhere() -> None:
    pyproject = tomllib.loads(read("pyproject.toml"))
    assert pyproject["project"]["dynamic"] == ["version"]
    assert pyproject["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "repro.__version__"}
    cited = re.search(r"^version: [\"']?([^\"'\n]+)", read("CITATION.cff"), flags=re.MULTILINE)
    assert cited is not None
    assert cited[1] == repro.__version__
    newest = re.search(r"^## \[(\d[^\]]*)\]", read("CHANGELOG.md"), flags=re.MULTILINE)
    assert newest is not None
    assert newest[1] == repro.__version__


def test_every_dependency_is_pinned_within_its_range() -> None:
    pinned = pins()
    for requirement in declared_requirements():
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{name} has no pin in constraints.txt"
        assert pinned[name] in requirement.specifier, f"{name}=={pinned[name]} is outside {requirement}"


def test_every_imported_package_is_declared() -> None:
    """Also those imported inside functions, which fail late on a machine that lacks them."""
    distributions = importlib.metadata.packages_distributions()
    declared = {canonicalize_name(requirement.name) for requirement in declared_requirements()}
    undeclared = set()
    sources = [
        path for name in ("repro", "baselines", "tests") for path in (PROJECT_ROOT / name).rglob("*.py")
    ]
    own = {"repro", "baselines"} | {path.stem for path in sources if "tests" in path.parts}
    own |= {"fuxictr", "model_zoo", "deepctr_torch"}  # compared with, in an environment of their own
    own |= {"lance"}  # pylance, the extra `table`: the tests do without it where it is not installed
    own |= {"torchao"}  # the extra `fp8`, likewise
    own |= {"triton"}  # comes with torch where there is CUDA, and is imported there alone
    for path in sources:
        for module in imported_modules(path) - set(sys.stdlib_module_names) - own:
            if not declared & {canonicalize_name(name) for name in distributions.get(module, [])}:
                undeclared.add((str(path.relative_to(PROJECT_ROOT)), module))
    assert not undeclared


def test_what_the_pinned_packages_need_is_pinned_too() -> None:
    """Follows installed packages whose version is the pinned one: all of them in `.venv`."""
    pinned = pins()
    queue = [(requirement.name, frozenset(requirement.extras)) for requirement in declared_requirements()]
    seen: set[tuple[str, frozenset[str]]] = set()
    missing = set()
    while queue:
        name, extras = queue.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        if canonicalize_name(name) not in pinned:
            missing.add(name)
            continue
        try:
            installed = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if installed.version.split("+")[0] != pinned[canonicalize_name(name)]:
            continue
        for text in installed.requires or []:
            needed = Requirement(text)
            marker = needed.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras}):
                queue.append((needed.name, frozenset(needed.extras)))
    assert not missing, f"installed in a reproduction without a pin: {sorted(missing)}"


def test_no_tracked_file_is_large() -> None:
    large = {name: (PROJECT_ROOT / name).stat().st_size for name in tracked_files()}
    assert not {name: size for name, size in large.items() if size > 2 * MIB}
    results = sum(size for name, size in large.items() if name.startswith("results/"))
    assert results < 25 * MIB


def test_no_data_set_and_no_weights_are_tracked() -> None:
    names = tracked_files()
    assert not [name for name in names if name.lower().endswith(FORBIDDEN_KINDS)]
    # Tables of predictions are records; any other Parquet file would be data.
    parquet = [name for name in names if name.endswith(".parquet")]
    assert not [name for name in parquet if not name.startswith("results/")]


@pytest.mark.parametrize(
    "module", ["repro", "repro.data", "repro.evaluation", "repro.records", "repro.reporting"]
)
def test_import_stays_light(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{'torch', 'transformers'}} & set(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split() == [], f"importing {module} imports {answer.stdout.strip()}"
