"""The published benchmark's command line over the benchmark of today."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import typer

from aiene.cli.console import RESEARCH_ONLY, user_errors

CONFIG = Path("benchmark_config.yaml")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the published command line; the exit code is that of `aiene benchmark`."""
    from aiene.cli.benchmark import compare

    words = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    given = {
        "image_dir": words.image_dir,
        "seg_dir": words.seg_dir,
        "ene_csv": words.ene_csv,
        "hf_models": words.hf_models,
        "max_cases": words.max_cases,
    }
    try:
        with user_errors("run_benchmark.py"):
            return compare(words.config or (CONFIG if CONFIG.is_file() else None), given, words.output_dir)
    except typer.Exit as end:
        return end.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run_benchmark.py",
        description="The published command line of the benchmark over `aiene benchmark`. " + RESEARCH_ONLY,
    )
    parser.add_argument("--image-dir", type=Path, help="folder of the CTs")
    parser.add_argument("--seg-dir", type=Path, help="folder of their ground truth")
    parser.add_argument("--ene-csv", type=Path, help="ENE of single nodes")
    parser.add_argument("--config", type=Path, help=f"configuration (default: {CONFIG}, where it exists)")
    parser.add_argument("--hf-models", nargs="+", help="Hugging Face models: ids or folders")
    parser.add_argument("--max-cases", type=int, help="take the first so many cases")
    parser.add_argument(
        "-o", "--output-dir", type=Path, default=Path("benchmark_results"), help="folder of the results"
    )
    return parser
