"""`aiene doctor` and `aiene demo`: what is wrong with this install or site; two phantoms through the road."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aiene.cli.console import AsJson, echo, echo_json, print_nodes, stderr_console, tell_case, user_errors
from aiene.cli.folders import write_report

if TYPE_CHECKING:
    from aiene.cohort import Progress, RunSummary
    from aiene.doctor.machine import Check, Finding
    from aiene.pacs.config import Peer


def doctor(
    peers: Annotated[
        list[str] | None,
        typer.Option(
            "--peer",
            metavar="PEER",
            help="AET@HOST:PORT, a DICOMweb URL, or a peer of --config. Can be repeated.",
        ),
    ] = None,
    store: Annotated[
        bool, typer.Option("--store/--no-store", help="Store a test object at the peer; it stays there.")
    ] = True,
    ae_title: Annotated[str, typer.Option("--ae-title", help="AE title of this computer.")] = "AIENE",
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Also check this configuration of aiene dicom listen."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Skip the self-test of the networks.")] = False,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            metavar="FILE.zip",
            help="Also write the findings to a ZIP file that you can attach to a bug report.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check this installation (or site), and say how to fix what is wrong; exit code 1 if something is."""
    from aiene.doctor import machine
    from aiene.doctor.machine import Finding, examine
    from aiene.pacs.config import parse_peer, read_config

    console = stderr_console()

    def tell(finding: Finding) -> None:
        if not as_json:
            remedy = f"; {finding.remedy}" if finding.remedy else ""
            echo(f"{finding.level:<8} {finding.area}: {finding.text}{remedy}.")

    with user_errors("aiene doctor"):
        settings = None if config is None else read_config(config)
        checks: list[Check] = [
            machine.python,
            machine.core,
            machine.torch_and_device,
            machine.engine,
            machine.cores_and_threads,
            machine.memory,
            machine.disk_and_folders,
            machine.extras,
            machine.pictures,
            partial(_bundles, quick),
        ]
        title = ae_title if settings is None else settings.listen.ae_title
        wanted = [parse_peer(text, settings) for text in peers or ()]
        if settings is not None:
            checks.append(lambda: iter([Finding("configuration", "ok", "every entry is valid")]))
            wanted += [settings.peers[name] for name in settings.send_to if not peers]
        checks += [partial(_peer, one, title, store) for one in wanted]
        found = examine(checks, tell)
        if bundle is not None:
            from aiene.doctor.report import write_report

            names = write_report(bundle, found, settings)
            console.print(f"{bundle.name}: {', '.join(names)}. Look at it before you send it.")
    if as_json:
        echo_json(found.to_json())
    raise typer.Exit(found.exit_code)


def _bundles(quick: bool) -> Iterator[Finding]:
    from aiene.doctor.bundles import bundles

    return bundles(quick=quick)


def _peer(wanted: Peer, title: str, store: bool) -> Iterator[Finding]:
    from aiene.doctor.peer import peer

    return peer(wanted, title, store=store)


SEEDS = {"phantom-dicom": 900_001, "phantom-nifti": 900_002}
"""Seeds of the two patients; never used in training."""


def demo(
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder for the phantoms and their results.")
    ] = Path("aiene-demo"),
    jobs: Annotated[
        int | None, typer.Option(help="Cases to prepare in parallel (default: one per core).")
    ] = None,
) -> None:
    """Make two synthetic patients (a DICOM series and a NIfTI file) and run them with the included model."""
    console = stderr_console()

    with user_errors():
        console.print("Making two phantom patients ...")
        summary = _run(out, jobs=jobs, on_case=partial(tell_case, console))
        console.print("Drawing their pages ...")
        write_report(out / "results", jobs=jobs)
    print_nodes(summary)
    console.print(f"Tables and masks on the phantoms' own grids: {out / 'results'}")
    console.print(f"Open in a browser: {(out / 'results' / 'report.html').resolve()}")
    raise typer.Exit(summary.exit_code)


def _run(out: Path, *, jobs: int | None, on_case: Callable[[Progress], None]) -> RunSummary:
    """Make the phantoms in `out/phantoms` and run them into `out/results`.

    The true label maps lie beside, in `out/truth`, for who wants to compare.

    Raises
    ------
    OutputError : nothing can be written there.
    UsageError : files of the user's are in the way there.
    """
    from aiene.cohort import run_cohort  # torch is loaded here, not by --help
    from aiene.phantom.phantom import PhantomSettings, make_phantom, write_dicom_series
    from aiene.results.atomic import writing
    from aiene.results.nifti import write_nifti
    from aiene.results.ownership import Owned

    phantoms, truth = out / "phantoms", out / "truth"
    for folder in (phantoms, truth):
        Owned(out).claim(folder.name)
    for case_id, seed in SEEDS.items():
        phantom = make_phantom(seed, PhantomSettings())
        write_nifti(phantom.labels, truth / f"{case_id}.nii.gz")
        if case_id.endswith("dicom"):
            with writing(phantoms):
                write_dicom_series(phantom.ct, phantoms / case_id, name=case_id)
        else:
            write_nifti(phantom.ct, phantoms / f"{case_id}.nii.gz")
    return run_cohort(phantoms, out / "results", jobs=jobs, overwrite=True, on_case=on_case)
