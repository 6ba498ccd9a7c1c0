"""What the container image runs: the commands of today, and beside them the published command lines.

docker run IMAGE run /in -o /out aiene run docker run IMAGE --input-dir /in --output-dir /out run_e2e.py, word
for word docker run IMAGE run_benchmark.py --image-dir ... run_benchmark.py
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import typer

from aiene.cli.console import RESEARCH_ONLY, device_of, picked, stderr_console, tell_case, user_errors
from aiene.errors import InputError, UsageError

_OURS: Final = frozenset({"-h", "--help", "--version"})
_PYTHON: Final = frozenset({"python", "python3"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Hand the words of a command line to whom they are meant for; the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in _PYTHON:
        words = words[1:]
    if words and words[0].rsplit("/", 1)[-1] == "run_benchmark.py":
        return benchmark_main(words[1:])
    named = bool(words) and words[0].rsplit("/", 1)[-1] == "run_e2e.py"
    if named or (words and words[0].startswith("-") and words[0] not in _OURS):
        return e2e_main(words[1:] if named else words)
    from aiene.cli.app import app

    if words and words[0] == "aiene":
        words = words[1:]
    app(words or ["--help"], prog_name="aiene")  # ends the process with the command's code
    return 0


if __name__ == "__main__":
    sys.exit(main())


CONFIG = Path("nnunet_segmentation/src/config.yaml")


class Source(NamedTuple):
    """Where the CTs lie, and how they are stored."""

    folder: Path
    format: str


def e2e_main(arguments: Sequence[str] | None = None) -> int:
    """Run the published command line; the exit code is that of `aiene run`."""
    return _published(_parser().parse_args(arguments), "run_e2e.py", _run)


def _published(words: argparse.Namespace, program: str, work: Callable[[argparse.Namespace], int]) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        with user_errors(program):
            return work(words)
    except typer.Exit as end:
        return end.exit_code


def _run(words: argparse.Namespace) -> int:
    from aiene.cohort import Selection, run_cohort  # torch is loaded here, not by --help
    from aiene.results.atomic import elsewhere

    console = stderr_console()

    source = choose_source(words, read_config(CONFIG))
    with elsewhere("choose another folder with --output-dir"):
        summary = run_cohort(
            source.folder,
            words.output_dir,
            model=words.model,
            device=device_of(words.gpu),
            selection=Selection(format=source.format, limit=words.limit),
            fg_labels=words.fg_labels,
            include_short_axes=words.include_short_axes,
            on_case=partial(tell_case, console),
        )
    for name, path in summary.tables.items():
        console.print(f"{name}: {path}")
    console.print(f"{summary.notice} {RESEARCH_ONLY}", style="bold")
    return summary.exit_code


def choose_source(words: argparse.Namespace, config: dict[str, Any]) -> Source:
    """Folder and format, by this precedence.

    Folder: `--input-dir`, then the legacy flags `--input-data-dir` and `--dicom-dir`, then
    `path.input_data_dir` of the configuration file. Format: `--input-format`, then dicom if the folder came
    from `--dicom-dir`, then `data.input_data_format` if the folder came from the file or the file names one,
    then auto.

    Raises
    ------
    UsageError : no folder is named anywhere, or a format that there is not.
    """
    from aiene.ingest.formats import wanted

    named = words.input_dir or words.input_data_dir or words.dicom_dir
    folder = named or _entry(config, "path", "input_data_dir")
    if not folder:
        raise UsageError("no CTs given; name their folder with --input-dir.")
    by_dicom_flag = words.dicom_dir and not (words.input_dir or words.input_data_dir)
    configured = None if by_dicom_flag else _entry(config, "data", "input_data_format")
    chosen = words.input_format or ("dicom" if by_dicom_flag else configured) or "auto"
    wanted(chosen)
    return Source(Path(folder), chosen)


def read_config(file: Path) -> dict[str, Any]:
    """The configuration of the published code, where such a file exists; empty otherwise.

    Raises
    ------
    InputError : the file is there, but is no YAML mapping.
    """
    if not file.is_file():
        return {}
    import yaml

    remedy = "correct it, or use --input-dir and other options instead"
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(file, "not a readable YAML file", remedy) from error
    if not isinstance(content, dict | None):
        raise InputError(file, "not a YAML mapping", remedy)
    return content or {}


def _entry(config: dict[str, Any], section: str, key: str) -> str | None:
    part = config.get(section)
    value = part.get(key) if isinstance(part, dict) else None
    return None if value in (None, "") else str(value)


def _parser() -> argparse.ArgumentParser:
    from aiene.ingest.formats import choices

    parser = argparse.ArgumentParser(
        prog="run_e2e.py",
        description="The published command line of AI-ENE over `aiene run`. " + RESEARCH_ONLY,
    )
    parser.add_argument("--input-dir", help="folder of the CTs")
    parser.add_argument("--input-format", choices=choices(), help="format of the CTs")
    parser.add_argument("--input-data-dir", help="legacy word for --input-dir")
    parser.add_argument("--dicom-dir", help="legacy: folder of DICOM patients")
    parser.add_argument("--output-dir", type=Path, default=Path("output"), help="folder of the results")
    parser.add_argument("--gpu", default="auto", help="cpu, auto, or the number of a GPU")
    parser.add_argument("--include-short-axes", action="store_true", help="also measure the axes")
    parser.add_argument("--limit", type=int, help="use only the first N cases")
    parser.add_argument("--fg-labels", help="labels that are nodes: 2 (usual), any, or a list")
    parser.add_argument("--model", default="default", help="name or folder of a model bundle")
    return parser


# The published benchmark's command line over the benchmark of today.


BENCHMARK_CONFIG = Path("benchmark_config.yaml")


def benchmark_main(arguments: Sequence[str] | None = None) -> int:
    """Run the published command line; the exit code is that of `aiene benchmark`."""
    return _published(_benchmark_parser().parse_args(arguments), "run_benchmark.py", _benchmark)


def _benchmark(words: argparse.Namespace) -> int:
    from aiene.cli.benchmark import compare

    given = picked(words, "image_dir", "seg_dir", "ene_csv", "hf_models", "max_cases")
    config = words.config or (BENCHMARK_CONFIG if BENCHMARK_CONFIG.is_file() else None)
    return compare(config, given, words.output_dir)


def _benchmark_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run_benchmark.py",
        description="The published command line of the benchmark over `aiene benchmark`. " + RESEARCH_ONLY,
    )
    parser.add_argument("--image-dir", type=Path, help="folder of the CTs")
    parser.add_argument("--seg-dir", type=Path, help="folder of their ground truth")
    parser.add_argument("--ene-csv", type=Path, help="CSV with the true ENE of each node")
    parser.add_argument(
        "--config", type=Path, help=f"configuration (default: {BENCHMARK_CONFIG}, where it exists)"
    )
    parser.add_argument("--hf-models", nargs="+", help="Hugging Face models: ids or folders")
    parser.add_argument("--max-cases", type=int, help="use only the first N cases")
    parser.add_argument(
        "-o", "--output-dir", type=Path, default=Path("benchmark_results"), help="folder of the results"
    )
    return parser
