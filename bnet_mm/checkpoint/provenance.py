"""Where a written checkpoint comes from."""

from datetime import datetime, timezone
from pathlib import Path

import bnet_mm
from bnet_mm.checkpoint.conversion import Conversion
from bnet_mm.checkpoint.hashing import sha256


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
