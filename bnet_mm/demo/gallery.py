"""Draws a detector's findings on pictures of its validation set into one picture."""

import warnings
from pathlib import Path

import cv2
import mmcv
import numpy as np
from mmdet.apis import inference_detector
from mmengine.dataset import Compose
from mmengine.registry import VISUALIZERS
from mmengine.runner import Runner

CELL = (384, 384)  # height, width of a picture's place in the sheet


def draw_gallery(
    runner: Runner, path: str | Path, count: int = 8, columns: int = 4, score: float = 0.6
) -> Path:
    """Writes a sheet with the detections on the first `count` validation pictures to `path`.

    Args:
        runner: a runner whose model has been trained or loaded.
        path: the PNG to write.
        count, columns: how many pictures, and how many side by side.
        score: detections below this score are not drawn.
    """
    dataset = runner.val_dataloader.dataset
    model = runner.model
    model.cfg = runner.cfg
    model.eval()
    pipeline = Compose(
        [step for step in dataset.pipeline.transforms if 'Annotations' not in type(step).__name__]
    )
    with VISUALIZERS.switch_scope_and_registry(runner.cfg.default_scope) as registry:
        visualizer = registry.build({**runner.cfg.visualizer, 'name': 'gallery', 'save_dir': None})
    visualizer.dataset_meta = dataset.metainfo
    cells = []
    for i in range(min(count, len(dataset))):
        path_of_picture = dataset.get_data_info(i)['img_path']
        picture = mmcv.imread(path_of_picture, channel_order='rgb')
        found = inference_detector(model, path_of_picture, test_pipeline=pipeline)
        # Scaled first, so that boxes and names are drawn at the sheet's own resolution.
        scale = min(CELL[0] / picture.shape[0], CELL[1] / picture.shape[1])
        found.pred_instances.bboxes *= scale
        with warnings.catch_warnings():
            # A name that does not fit into the picture is drawn as far as it does.
            warnings.filterwarnings('ignore', message='.*out of bounds')
            visualizer.add_datasample(
                'picture',
                mmcv.imrescale(picture, scale),
                found,
                draw_gt=False,
                show=False,
                pred_score_thr=score,
            )
        cells.append(_framed(visualizer.get_image()))
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % columns)
    rows = [np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.vstack(rows)[..., ::-1])
    return path


def _framed(picture: np.ndarray) -> np.ndarray:
    """Returns the picture in the middle of a white cell."""
    cell = np.full((*CELL, 3), 255, np.uint8)
    height, width = picture.shape[:2]
    top, left = (CELL[0] - height) // 2, (CELL[1] - width) // 2
    cell[top : top + height, left : left + width] = picture
    return cell
