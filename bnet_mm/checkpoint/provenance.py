"""Where a written checkpoint comes from."""

import hashlib
from datetime import datetime, timezone
from pathlib import Path

import bnet_mm
from bnet_mm.checkpoint.conversion import Conversion


def provenance(source: str | Path, conversion: Conversion) -> dict[str, str]:
    """Returns what a converted checkpoint says of itself, under `meta['bnet_mm']`."""
    source = Path(source)
    return {
        'source': source.name,
        'source_sha256': sha256(source),
        'source_layout': str(conversion.layout),
        'network': str(conversion.architecture),
        'names': conversion.to,
        'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'bnet_mm': bnet_mm.__version__,
    }


def sha256(path: str | Path) -> str:
    """Returns the SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
