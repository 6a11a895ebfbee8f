"""The demo: drawn data, training, evaluation and an image of detections, from one config."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import cv2
import numpy as np
from mmengine.dataset import Compose
from mmengine.registry import VISUALIZERS
from mmengine.runner import Runner
from rich.console import Console
from rich.table import Table

from bnet_mm.demo.layouts import write_coco
from bnet_mm.engine.config import load_config, set_run_options
from bnet_mm.engine.launch import train

CONFIG = Path('configs/demo/faster_rcnn_r18_bnet5_fpn_demo.py')
# COCO's names of the columns of table 5, and mmdet's keys of them.
COLUMNS = {
    'AP': 'bbox_mAP', 'AP50': 'bbox_mAP_50', 'AP75': 'bbox_mAP_75',
    'APs': 'bbox_mAP_s', 'APm': 'bbox_mAP_m', 'APl': 'bbox_mAP_l',
}  # fmt: skip
CELL = 384  # pixels of the longer side of an image in the sheet of detections


def run_demo(root: Path, work_dir: str = 'work_dirs/demo') -> Path:
    """Trains and evaluates the demo detector and returns the sheet of its detections.

    Args:
        root: the folder that holds `configs`.
        work_dir: folder of logs, checkpoints and the sheet.
    """
    started = time.time()
    console = Console()
    cfg = load_config(root / CONFIG)
    set_run_options(cfg, config_path=CONFIG, work_dir=work_dir)
    folder = Path(cfg.train_dataloader.dataset.data_root)
    console.print(f'[bold]Demo 1/3[/]: drawing 540 images into {folder} (15 seconds)')
    write_coco(folder)
    console.print(
        f'[bold]Demo 2/3[/]: training {CONFIG.stem} from scratch (6 to 11 minutes on 2 cores)'
    )
    runner = train(cfg)
    console.print('[bold]Demo 3/3[/]: drawing detections on validation images (seconds)')
    sheet = draw_detections(runner, Path(cfg.work_dir) / 'detections.png')
    table = Table(*COLUMNS, title='Box AP, 60 validation images')
    values = [
        runner.message_hub.get_scalar(f'val/coco/{key}').current() for key in COLUMNS.values()
    ]
    table.add_row(*(f'{100 * ap:.1f}' if ap >= 0 else '-' for ap in values))  # -1: no such object
    console.print(table)
    minutes = (time.time() - started) / 60
    console.print(f'Done in {minutes:.1f} minutes. Detections on validation images:')
    print(sheet)  # by itself on a line, unwrapped, to be opened or copied
    return sheet


def draw_detections(
    runner: Runner, path: Path, count: int = 8, columns: int = 4, score: float = 0.6
) -> Path:
    """Writes a sheet of the detections on the first `count` validation images to `path`.

    Args:
        runner: a runner whose model has been trained or loaded.
        path: the PNG to write.
        count, columns: how many images, and how many side by side.
        score: detections below this score are not drawn.
    """
    import mmcv  # these two are slow to import; training has done it by now
    from mmdet.apis import inference_detector

    dataset = runner.val_dataloader.dataset
    model = runner.model.eval()
    model.cfg = runner.cfg
    pipeline = Compose(
        [step for step in dataset.pipeline.transforms if 'Annotations' not in type(step).__name__]
    )
    with VISUALIZERS.switch_scope_and_registry(runner.cfg.default_scope) as registry:
        visualizer = registry.build(
            {**runner.cfg.visualizer, 'name': 'sheet', 'vis_backends': None}
        )
    visualizer.dataset_meta = dataset.metainfo
    count = min(count, len(dataset))
    rows = -(-count // columns)
    cells = np.full((rows * columns, CELL, CELL, 3), 255, np.uint8)
    for i in range(count):
        image_path = dataset.get_data_info(i)['img_path']
        found = inference_detector(model, image_path, test_pipeline=pipeline)
        # Scaled first, so that boxes and names are drawn at the sheet's own resolution.
        image, scale = mmcv.imrescale(
            mmcv.imread(image_path, channel_order='rgb'), (CELL, CELL), return_scale=True
        )
        found.pred_instances.bboxes *= scale
        with warnings.catch_warnings():
            # A name that does not fit into the image is drawn as far as it does.
            warnings.filterwarnings('ignore', message='.*out of bounds')
            visualizer.add_datasample(
                'image', image, found, draw_gt=False, show=False, pred_score_thr=score
            )
        height, width = image.shape[:2]
        top, left = (CELL - height) // 2, (CELL - width) // 2
        cells[i, top : top + height, left : left + width] = visualizer.get_image()
    sheet = cells.reshape(rows, columns, CELL, CELL, 3).swapaxes(1, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), sheet.reshape(rows * CELL, columns * CELL, 3)[..., ::-1])
    return path
