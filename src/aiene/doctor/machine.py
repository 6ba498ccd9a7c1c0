"""A finding; the machine and the install: Python, torch, cores, memory, disk, extras, fonts, a browser."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

import psutil

from aiene.device import available_cores
from aiene.models.bundle import models_folder
from aiene.provenance import version

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """What was found.

    Parameters
    ----------
    area : what was looked at, in a word or two.
    level : `note` where something works less well, or is not installed and may not be needed.
    text : one sentence without a full stop.
    remedy : what to do; empty where all is well.
    facts : figures for machines.
    """

    area: str
    level: Level
    text: str
    remedy: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


Check = Callable[[], Iterator[Finding]]


@dataclass(frozen=True)
class Diagnosis:
    """Everything that was found."""

    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """1 where there is a problem."""
        return int(any(finding.level == "problem" for finding in self.findings))

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {"exit_code": self.exit_code, "findings": [asdict(finding) for finding in self.findings]}


def examine(checks: Sequence[Check], on_finding: Callable[[Finding], None] = lambda _: None) -> Diagnosis:
    """Run checks one after the other."""
    found: list[Finding] = []
    for check in checks:
        for finding in check():
            found.append(finding)
            on_finding(finding)
    return Diagnosis(tuple(found))


_GB: Final = 1e9
_MEMORY_GB: Final = 6.0
"""Peak of a run of one case is about 3 GB (docs/measured.md), and the system needs some."""

_DISK_GB: Final = 5.0
_PYTHON: Final = ((3, 11), (3, 13))
_MODULES: Final[dict[str, tuple[str, ...]]] = {
    "dicom": ("highdicom", "PIL"),
    "hospital": ("highdicom", "pynetdicom", "dicomweb_client", "requests"),
    "risk": ("comprisk", "jinja2", "lifelines", "matplotlib", "openpyxl", "pyarrow"),
    "benchmark": ("huggingface_hub", "jinja2", "matplotlib", "monai", "sklearn", "transformers"),
    "fast": ("openvino",),
    "train": ("nnunetv2", "sklearn", "tensorboard"),
}
"""By extra, what it brings: the modules that the commands ask for."""

_CORE: Final = (
    "dynamic_network_architectures", "h5py", "nibabel", "numpy", "pandas", "pydantic", "pydicom", "pylibjpeg",
    "openjpeg", "libjpeg", "jpeg_ls", "safetensors", "skimage", "scipy", "SimpleITK", "torch", "yaml",
)  # fmt: skip
_SLOW: Final = frozenset(
    {"monai", "nnunetv2", "openvino", "sklearn", "tensorboard", "transformers", "comprisk", "lifelines"}
)
_BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")


def python() -> Iterator[Finding]:
    """The interpreter, and this package in it."""
    told = partial(Finding, "Python")
    here, facts = sys.version_info[:2], {"python": platform.python_version(), "aiene": version()}
    text = f"Python {facts['python']}, aiene {facts['aiene']}"
    if not _PYTHON[0] <= here <= _PYTHON[1]:
        yield told("problem", text, "use Python 3.11 to 3.13", facts)
        return
    where = Path(__file__).resolve().parents[1]
    level: Level = "note" if sys.flags.optimize else "ok"
    yield told(
        level, text, "run Python without -O" if sys.flags.optimize else "", {**facts, "folder": where.name}
    )


def core() -> Iterator[Finding]:
    """What every command needs."""
    told = partial(Finding, "packages")
    broken = [(name, reason) for name in _CORE if (reason := _why_not(name))]
    for name, reason in broken:
        yield told("problem", f"{name} cannot be loaded ({reason})", "pip install --force-reinstall aiene")
    if not broken:
        yield told("ok", f"all {len(_CORE)} that every command needs are installed")


def torch_and_device() -> Iterator[Finding]:
    """torch, with what of the processor or graphics card it can use."""
    told = partial(Finding, "torch")
    try:
        import torch
    except (ImportError, OSError) as error:
        text = f"torch cannot be loaded ({type(error).__name__})"
        yield told("problem", text, "pip install --force-reinstall torch")
        return
    able = torch.backends.cpu.get_cpu_capability()
    facts = {"torch": torch.__version__, "cpu": able, "cuda": torch.cuda.is_available()}
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name(0)
        free, total = torch.cuda.mem_get_info(0)
        text = f"torch {torch.__version__} on {name}, {free / _GB:.0f} of {total / _GB:.0f} GB free"
        yield told("ok", text, "", {**facts, "gpu": name})
        return
    has_nvidia = Path("/proc/driver/nvidia").is_dir() or shutil.which("nvidia-smi") is not None
    if torch.version.cuda and has_nvidia:
        text = f"torch {torch.__version__} finds no GPU, though there is an NVIDIA card"
        yield told("problem", text, "update its driver, or use --device cpu", facts)
        return
    if "AVX" not in able and platform.machine() in ("x86_64", "AMD64"):
        text = f"torch {torch.__version__} on a processor without AVX2: slow"
        yield told("note", text, "use a newer machine", facts)
        return
    yield told("ok", f"torch {torch.__version__} on the processor ({able}), no GPU", "", facts)


def engine() -> Iterator[Finding]:
    """What `--engine fast` would use here."""
    told = partial(Finding, "engine")
    try:
        import torch
    except (ImportError, OSError):
        return  # told by `torch_and_device`

    from aiene.segment.engines import fastest_here

    name = fastest_here(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if name == "torch float32":
        remedy = "if you need it: pip install 'aiene[fast]'"
        yield told("note", "--engine fast has no faster engine here", remedy, {"fast": name})
    else:
        yield told("ok", f"--engine fast would use {name}", "", {"fast": name})


def cores_and_threads() -> Iterator[Finding]:
    """Cores that may be used, and variables that hold them back."""
    cores, there = available_cores(), os.cpu_count() or 1
    facts = {"usable": cores, "there": there}
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
        value = os.environ.get(name)
        if value is None or (value.isdigit() and int(value) == cores):
            continue
        wrong: Level = "note" if value.isdigit() and int(value) >= 1 else "problem"
        if wrong == "problem":
            text = f"{name} is {value!r}, which is not a number of threads"
        elif int(value) > cores:
            text = f"{name} is {value}, more than the {cores} usable cores"
        else:
            text = f"{name} is {value}, so some of {cores} cores are not used"
        yield Finding("cores", wrong, text, f"unset {name}", facts)
    level: Level = "note" if cores < 2 else "ok"
    yield Finding(
        "cores", level, f"{cores} of {there} cores usable", "a run takes longer" if cores < 2 else "", facts
    )


def memory() -> Iterator[Finding]:
    """Memory, a container's limit included."""
    told = partial(Finding, "memory")
    free, total = psutil.virtual_memory().available, psutil.virtual_memory().total
    limit = _cgroup_limit()
    if limit is not None and limit < total:
        total, free = limit, min(free, limit)
    facts = {"free_gb": round(free / _GB, 1), "total_gb": round(total / _GB, 1)}
    text = f"{free / _GB:.1f} of {total / _GB:.1f} GB free"
    if total < _MEMORY_GB * _GB:
        yield told("problem", text, f"give it {_MEMORY_GB:.0f} GB: a case needs about 3", facts)
    elif free < _MEMORY_GB * _GB:
        yield told("note", text, "end other programs, or run with --jobs 1", facts)
    else:
        yield told("ok", text, "", facts)


def disk_and_folders() -> Iterator[Finding]:
    """Room, and the right to write, where results, models and temporary files go."""
    temporary = os.environ.get("TMPDIR")
    if temporary and not Path(temporary).is_dir():
        yield Finding("disk", "problem", "TMPDIR names a folder that is not there", "correct or unset TMPDIR")
    places = {"the current folder": Path.cwd(), "the temporary folder": Path(tempfile.gettempdir())}
    if models_folder().exists() or "AIENE_MODELS" in os.environ:
        places["the models folder"] = models_folder()
    for name, place in places.items():
        yield _place(name, place)


def extras() -> Iterator[Finding]:
    """The optional parts."""
    for extra, modules in _MODULES.items():
        lacking = {name: reason for name in modules if (reason := _why_not(name))}
        if not lacking:
            yield Finding(f"extra {extra}", "ok", "it is installed")
            continue
        absent = [name for name, reason in lacking.items() if reason == "not installed"]
        broken = [name for name in lacking if name not in absent]
        if broken:
            text = f"{broken[0]} cannot be loaded ({lacking[broken[0]]})"
            yield Finding(
                f"extra {extra}", "problem", text, f"pip install --force-reinstall 'aiene[{extra}]'"
            )
        else:
            text = f"not installed ({', '.join(absent)})"
            yield Finding(f"extra {extra}", "note", text, f"if you need it: pip install 'aiene[{extra}]'")


def pictures() -> Iterator[Finding]:
    """A font for charts, and a browser that draws pages."""
    if not _why_not("matplotlib"):
        from matplotlib import font_manager

        try:
            font_manager.findfont("sans-serif", fallback_to_default=False)
            yield Finding("fonts", "ok", "charts find a font")
        except ValueError:
            remedy = "install fonts-dejavu-core, or pip install --force-reinstall matplotlib"
            yield Finding("fonts", "problem", "charts find no font", remedy)
    found = next((name for name in _BROWSERS if shutil.which(name)), None)
    if found is None:
        text = "no Chromium to take pictures of pages"
        yield Finding("browser", "note", text, "if you need them: install chromium")
    else:
        yield Finding("browser", "ok", f"{found} is there")


def _place(name: str, place: Path) -> Finding:
    told = partial(Finding, "disk")
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place, prefix=".aiene-doctor-") as file:
            file.write(b"x")
        free = shutil.disk_usage(place).free
    except OSError as error:
        why = error.strerror or type(error).__name__
        remedy = "correct its permissions, or free some space"
        return told("problem", f"nothing can be written in {name} ({why})", remedy)
    facts = {"free_gb": round(free / _GB, 1)}
    if free < _DISK_GB * _GB:
        text = f"only {free / _GB:.1f} GB free in {name}"
        return told("problem", text, f"free some space: {_DISK_GB:.0f} GB", facts)
    return told("ok", f"{free / _GB:.0f} GB free in {name}", "", facts)


def _why_not(module: str) -> str:
    """Why a module cannot be loaded; empty where it can. Of the slow ones only whether it is there."""
    if module in _SLOW:
        return "" if importlib.util.find_spec(module) is not None else "not installed"
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        its_own = (error.name or "").split(".")[0] == module.split(".")[0]
        return "not installed" if its_own else f"it lacks {error.name}"
    except (ImportError, OSError, AttributeError, ValueError, SyntaxError) as error:
        return type(error).__name__
    return ""


def _cgroup_limit() -> int | None:
    for file in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() else None
    return None


def installed() -> dict[str, str]:
    """Every installed distribution with its version, for a report of a fault."""
    return {str(d.metadata["Name"]): d.version for d in metadata.distributions() if d.metadata["Name"]}
