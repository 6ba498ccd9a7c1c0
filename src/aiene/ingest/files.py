"""Every file of an input, those in zip archives too, for whoever looks for more than cases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from aiene.errors import InputError
from aiene.ingest.archive import unpacked
from aiene.ingest.listing import list_places, walk_inside


@contextmanager
def source_files(source: Path) -> Iterator[tuple[Path, ...]]:
    """The files of a folder, a single file, a DICOMDIR or a zip archive, as `find_cases` would look at them.

    Those of archives lie in temporary folders that are gone when the context is left; an archive that cannot
    be opened is passed over.

    Raises
    ------
    InputError : `source` is not there or cannot be opened.
    """
    if not source.exists():
        raise InputError(source, "it does not exist", "give a folder or file with a CT")
    with ExitStack() as stack:
        files: list[Path] = []
        for listing in list_places(source):
            files += listing.files
            if not listing.is_archive:
                continue
            try:
                folder = stack.enter_context(unpacked(listing.path))
            except InputError:
                if listing.path == source:
                    raise
                continue
            files += walk_inside(listing, folder).files
        yield tuple(files)
