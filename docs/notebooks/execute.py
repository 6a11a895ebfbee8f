"""Executes notebooks in place, and keeps their outputs small and clean.

pip install nbclient ipykernel matplotlib-inline
python docs/notebooks/execute.py                  # all, or those that are named
"""

from __future__ import annotations

import argparse
import base64
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

HERE = Path(__file__).resolve().parent
COLOURS = 48  # of a figure: lines and colour maps need no more
QUALITY = 60  # of a JPEG
METADATA = {
    'kernelspec': {'display_name': 'Python 3', 'language': 'python', 'name': 'python3'},
    'language_info': {'name': 'python'},
}


def execute(path: Path) -> None:
    """Runs a notebook in an empty folder and writes it back with its outputs."""
    import nbformat  # here, so that --help needs no Jupyter
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    with TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=1800, resources={'metadata': {'path': folder}}).execute()
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = {}  # times of the execution
        if cell.cell_type != 'code':
            continue
        cell.execution_count = None
        cell.outputs = [compressed(output) for output in cell.outputs]
    nbformat.write(notebook, path)


def compressed(output: dict) -> dict:
    """Returns an output without its count, a figure in the smaller of two formats."""
    if 'execution_count' in output:
        output['execution_count'] = None
    data = output.get('data', {})
    if 'image/png' not in data:
        return output
    image = Image.open(BytesIO(base64.b64decode(data.pop('image/png')))).convert('RGB')
    files = {kind: BytesIO() for kind in ('png', 'jpeg')}
    image.quantize(COLOURS).save(files['png'], 'PNG', optimize=True)
    image.save(files['jpeg'], 'JPEG', quality=QUALITY, optimize=True)
    kind = min(files, key=lambda name: len(files[name].getvalue()))
    encoded = base64.b64encode(files[kind].getvalue()).decode()
    output['data'] = {f'image/{kind}': encoded}  # and not `<Figure ...>`
    output['metadata'].clear()
    return output


def main() -> None:
    parser = argparse.ArgumentParser(description='Execute notebooks in place.')
    parser.add_argument('notebooks', nargs='*', type=Path, help='all of this folder by default')
    for path in parser.parse_args().notebooks or sorted(HERE.glob('*.ipynb')):
        print(path)
        execute(path)


if __name__ == '__main__':
    main()
