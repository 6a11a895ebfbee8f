"""Makes a training's checkpoint one to give away."""

from pathlib import Path

from bnet_mm.checkpoint.contents import contents_of
from bnet_mm.checkpoint.reading import read_checkpoint
from bnet_mm.checkpoint.writing import check_target, write_checkpoint


def publish(
    source: str | Path, target: str | Path, force: bool = False
) -> tuple[Path, dict[str, str]]:
    """Writes the weights and the metadata of `source`, without what only training needs.

    As OpenMMLab's own tool does, the first 8 digits of the file's SHA-256 are put before the suffix
    of `target`. Where a training kept averaged weights (EMA), `state_dict` is what was evaluated,
    and the other copy goes.

    Returns:
        The file that was written, and what was left out and why.

    Raises:
        InputError: `source` cannot be read, or the file cannot be written.
    """
    check_target(target, force=True)
    checkpoint = read_checkpoint(source)
    contents = contents_of(checkpoint)
    others = {key: checkpoint[key] for key in contents.unexplained if key in checkpoint}
    published = {'meta': contents.meta, 'state_dict': contents.state, **others}
    return write_checkpoint(published, target, force, hashed=True), contents.dropped
