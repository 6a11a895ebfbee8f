"""The first run: data, training, evaluation and a picture, from one config."""

import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bnet_mm.demo.coco import write_coco
from bnet_mm.engine.config import load_config, set_run_options
from bnet_mm.engine.launch import train

CONFIG = Path('configs/demo/faster_rcnn_r18_bnet5_fpn_demo.py')
# COCO's names of the columns of table 5, and mmdet's keys of them.
COLUMNS = {
    'AP': 'bbox_mAP', 'AP50': 'bbox_mAP_50', 'AP75': 'bbox_mAP_75',
    'APs': 'bbox_mAP_s', 'APm': 'bbox_mAP_m', 'APl': 'bbox_mAP_l',
}  # fmt: skip


def run_demo(root: Path, work_dir: str = 'work_dirs/demo') -> Path:
    """Trains and evaluates the demo detector and returns the picture of its detections.

    Args:
        root: the folder that holds `configs`.
        work_dir: folder of logs, checkpoints and the picture.
    """
    started = time.time()
    console = Console()
    cfg = load_config(root / CONFIG)
    set_run_options(cfg, config_path=CONFIG, work_dir=work_dir)
    folder = Path(cfg.train_dataloader.dataset.data_root)
    console.print(f'[bold]Demo 1/3[/]: drawing 540 pictures into {folder} (15 seconds)')
    write_coco(folder)
    console.print(
        f'[bold]Demo 2/3[/]: training {CONFIG.stem} from scratch (6 to 9 minutes on 2 cores)'
    )
    runner = train(cfg)
    console.print('[bold]Demo 3/3[/]: drawing detections on validation pictures (seconds)')
    from bnet_mm.demo.gallery import draw_gallery  # imports mmdet whole, which train() did by now

    picture = draw_gallery(runner, Path(cfg.work_dir) / 'detections.png')
    console.print(_ap_table(runner.message_hub))
    console.print(
        f'Done in {(time.time() - started) / 60:.1f} minutes. Detections on validation pictures:'
    )
    print(picture)  # by itself on a line, unwrapped, to be opened or copied
    return picture


def _ap_table(message_hub) -> Table:
    table = Table(title='Box AP, 60 validation pictures')
    row = []
    for column, key in COLUMNS.items():
        table.add_column(column, justify='right')
        value = message_hub.get_scalar(f'val/coco/{key}').current()
        row.append(f'{100 * value:.1f}' if value >= 0 else '-')  # COCO: no object of this size
    table.add_row(*row)
    return table
