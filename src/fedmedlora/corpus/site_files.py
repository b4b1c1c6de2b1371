"""Sites' notes in, a folder of neutral JSONL files for each site out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fedmedlora.corpus.jsonl import write_jsonl
from fedmedlora.corpus.synthetic import SiteDocuments
from fedmedlora.errors import DataError


def write_sites(sites: Mapping[str, SiteDocuments], out: Path) -> list[Path]:
    """Write train.jsonl, validation.jsonl and test.jsonl of every site; a split of no notes none.

    Args:
        sites: by name, which is the name of the site's folder.
        out: a new or empty folder.

    Returns:
        the sites' folders.

    Raises:
        DataError: ``out`` holds something, or a file cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError("is there already and is no empty folder; choose another", path=out)
    folders = []
    for name, site in sites.items():
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        splits = {"train": site.train, "validation": site.validation, "test": site.test}
        for split, documents in splits.items():
            if documents:
                write_jsonl(documents, folder / f"{split}.jsonl")
        folders.append(folder)
    return folders
