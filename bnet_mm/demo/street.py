"""Draws a street as a car's camera sees it, with the class and the instance of each pixel."""

from dataclasses import dataclass, field

import cv2
import numpy as np

from bnet_mm.demo.ink import CANVAS, Drawing, draw_object
from bnet_mm.demo.texture import camera, clouds, light
from bnet_mm.demo.voc_objects import draw_bus, draw_car, draw_person

# Cityscapes' ids of what is drawn.
IDS = {
    'ego vehicle': 1, 'road': 7, 'sidewalk': 8, 'building': 11, 'pole': 17, 'traffic light': 19,
    'traffic sign': 20, 'vegetation': 21, 'terrain': 22, 'sky': 23, 'person': 24, 'car': 26,
    'bus': 28,
}  # fmt: skip
# Size in camera heights above the road, for a thing that stands on it.
HEIGHTS = {'person': 1.2, 'car': 1.1, 'bus': 2.1}
THINGS: dict[str, Drawing] = {'person': draw_person, 'car': draw_car, 'bus': draw_bus}


@dataclass
class Street:
    """A street scene of `height` x `width` pixels while it is drawn, from far to near.

    Attributes:
        picture: `(height, width, 3)` float32, BGR in [0, 1].
        ids: `(height, width)` uint8, Cityscapes' class ids.
        instances: `(height, width)` uint16: 1000 * id + number for a thing, else the id.
    """

    rng: np.random.Generator
    height: int
    width: int
    picture: np.ndarray = field(init=False)
    ids: np.ndarray = field(init=False)
    instances: np.ndarray = field(init=False)

    def __post_init__(self):
        self.picture = np.zeros((self.height, self.width, 3), np.float32)
        self.ids = np.zeros((self.height, self.width), np.uint8)
        self.instances = np.zeros((self.height, self.width), np.uint16)

    def paint(self, name: str, points: np.ndarray, color: np.ndarray, grain: float = 0.3) -> None:
        """Fills a polygon of `(N, 2)` points (x, y) with a grainy colour and its class."""
        mask = np.zeros((self.height, self.width), np.uint8)
        cv2.fillPoly(mask, [np.round(points).astype(np.int32)], 255, cv2.LINE_AA)
        texture = 1 + grain * (clouds(self.rng, self.height, self.width, 7) - 0.5)
        self.lay(name, mask.astype(np.float32) / 255, color * texture[..., None])

    def lay(self, name: str, opacity: np.ndarray, colors: np.ndarray, number: int = 0) -> None:
        """Lays `(height, width, 3)` colours over the picture where `opacity` says so."""
        self.picture += opacity[..., None] * (colors - self.picture)
        seen = opacity > 0.5
        self.ids[seen] = IDS[name]
        self.instances[seen] = 1000 * IDS[name] + number if name in THINGS else IDS[name]


def draw_street(
    rng: np.random.Generator, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns a `(height, width, 3)` uint8 BGR picture, its uint8 ids and its uint16 instances."""
    street = Street(rng, height, width)
    horizon = height * rng.uniform(0.36, 0.46)
    vanishing = np.array([width * rng.uniform(0.42, 0.58), horizon])
    _sky(street)
    _buildings(street, horizon)
    _trees(street, horizon)
    _ground(street, vanishing)
    _furniture(street, vanishing)
    _traffic(street, vanishing)
    _bonnet(street)
    street.picture *= light(rng, height, width)[..., None]
    return camera(rng, street.picture), street.ids, street.instances


def _sky(street: Street) -> None:
    blue = street.rng.uniform((0.7, 0.6, 0.5), (0.95, 0.8, 0.7))
    white = clouds(street.rng, street.height, street.width)[..., None]
    street.lay('sky', np.ones_like(street.ids, np.float32), blue * (1 - white) + 0.92 * white)


def _buildings(street: Street, horizon: float) -> None:
    rng, x = street.rng, 0.0
    while x < street.width:
        # Lower towards the middle, where the street runs away.
        away = 1 - abs(x / street.width - 0.5) * 2
        wide = street.width * rng.uniform(0.08, 0.2)
        top = horizon - street.height * rng.uniform(0.08, 0.4) * (1.1 - 0.8 * away)
        wall = rng.uniform(0.25, 0.75) * rng.uniform(0.8, 1.2, 3)
        street.paint('building', _box(x, top, x + wide, horizon + 0.08 * street.height), wall)
        step = wide / rng.integers(3, 6)
        for left in np.arange(x + 0.25 * step, x + wide - 0.6 * step, step):
            for y in np.arange(top + 0.3 * step, horizon - 0.5 * step, step):
                glass = rng.uniform(0.1, 0.4) * np.ones(3)
                window = _box(left, y, left + 0.5 * step, y + 0.6 * step)
                cv2.fillPoly(street.picture, [window.round().astype(np.int32)], glass.tolist())
        x += wide


def _trees(street: Street, horizon: float) -> None:
    rng = street.rng
    for _ in range(rng.integers(1, 6)):
        x = street.width * rng.choice([rng.uniform(0, 0.35), rng.uniform(0.65, 1)])
        radius = street.height * rng.uniform(0.08, 0.2)
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        crown = radius * rng.uniform(0.7, 1.15, 24)[:, None]
        points = crown * np.stack([np.cos(angles), np.sin(angles)], 1) + (x, horizon - 0.7 * radius)
        trunk = _box(x - 0.06 * radius, horizon - radius, x + 0.06 * radius, horizon + 0.5 * radius)
        street.paint('vegetation', trunk, np.array([0.12, 0.2, 0.28]))
        street.paint('vegetation', points, rng.uniform((0.1, 0.3, 0.1), (0.25, 0.55, 0.3)), 0.9)


def _ground(street: Street, vanishing: np.ndarray) -> None:
    rng, bottom = street.rng, street.height
    half, side = street.width * rng.uniform(0.45, 0.75), street.width * rng.uniform(0.15, 0.4)
    gray = rng.uniform(0.25, 0.45)
    pavement = np.array([gray, gray, gray]) * rng.uniform(1.15, 1.5)
    edge = street.width * np.array([-2, 3])
    wide = np.array([(edge[0], vanishing[1] + 4), (edge[1], vanishing[1] + 4),
                     (edge[1], bottom), (edge[0], bottom)])  # fmt: skip
    street.paint('terrain', wide, rng.uniform((0.1, 0.35, 0.25), (0.3, 0.55, 0.45)))
    for name, reach, color in (
        ('sidewalk', half + side, pavement),
        ('road', half, np.array([gray, gray, gray])),
    ):
        # Ends at the horizon a little wide, so that the far end is some pixels.
        tip = 0.012 * reach
        points = [(vanishing[0] - tip, vanishing[1]), (vanishing[0] + tip, vanishing[1]),
                  (vanishing[0] + reach, bottom), (vanishing[0] - reach, bottom)]  # fmt: skip
        street.paint(name, np.array(points), color)
    for lane in (-0.33, 0.33):
        for near, far in ((1.0, 0.8), (0.66, 0.52), (0.42, 0.33), (0.26, 0.2)):
            ends = np.array([_on_road(street, vanishing, lane * half, t) for t in (near, far)])
            dash = np.array([ends[0] - (3 * near, 0), ends[0] + (3 * near, 0),
                             ends[1] + (3 * far, 0), ends[1] - (3 * far, 0)])  # fmt: skip
            street.paint('road', dash, np.full(3, 0.85))


def _furniture(street: Street, vanishing: np.ndarray) -> None:
    rng = street.rng
    for depth in sorted(rng.uniform(0.15, 0.7, rng.integers(1, 5))):
        side = rng.choice([-1, 1]) * street.width * rng.uniform(0.62, 0.85)
        foot = _on_road(street, vanishing, side, depth)
        tall, thick = 0.75 * street.height * depth, max(2.0, 7 * depth)
        top = foot - (0, tall)
        pole = _box(foot[0] - thick / 2, top[1], foot[0] + thick / 2, foot[1])
        street.paint('pole', pole, rng.uniform(0.35, 0.55, 3))
        size = 0.13 * tall
        if rng.random() < 0.5:
            case = _box(top[0] - 0.5 * size, top[1], top[0] + 0.5 * size, top[1] + 2.2 * size)
            street.paint('traffic light', case, np.full(3, 0.08))
            lamp = [(0.1, 0.1, 0.9), (0.1, 0.7, 0.9), (0.2, 0.8, 0.2)][rng.integers(3)]
            at = (round(top[0]), round(top[1] + size * rng.uniform(0.5, 1.7)))
            cv2.circle(street.picture, at, max(1, round(0.3 * size)), lamp, -1)
        else:
            turn = np.pi / 8 + 2 * np.pi * np.arange(8) / 8
            plate = size * np.stack([np.cos(turn), np.sin(turn)], 1) + top
            color = np.array([(0.15, 0.15, 0.8), (0.75, 0.35, 0.1), (0.1, 0.75, 0.85)])
            street.paint('traffic sign', plate, color[rng.integers(3)], 0.1)


def _traffic(street: Street, vanishing: np.ndarray) -> None:
    rng = street.rng
    numbers = dict.fromkeys(THINGS, 0)
    for depth in sorted(rng.uniform(0.12, 0.75, rng.integers(3, 9))):
        name = str(rng.choice(list(THINGS), p=[0.4, 0.48, 0.12]))
        reach = (0.5, 0.85) if name == 'person' else (0.05, 0.5)
        foot = _on_road(
            street, vanishing, rng.choice([-1, 1]) * street.width * rng.uniform(*reach), depth
        )
        tall = HEIGHTS[name] * 0.3 * street.height * depth
        drawing = draw_object(rng, THINGS[name])
        scale = tall / _extent(drawing[..., 3])
        offset = foot - scale * np.array([CANVAS / 2, _lowest(drawing[..., 3])])
        if scale < 0.7:
            drawing = cv2.GaussianBlur(drawing, (0, 0), 0.4 / scale)
        matrix = np.array([[scale, 0, offset[0]], [0, scale, offset[1]]])
        layer = cv2.warpAffine(drawing, matrix, (street.width, street.height))
        if (layer[..., 3] > 0.5).sum() > 8:
            street.lay(name, layer[..., 3], layer[..., :3], numbers[name])
            numbers[name] += 1


def _bonnet(street: Street) -> None:
    x = np.linspace(0, street.width, 30)
    curve = street.height * (0.985 - 0.07 * np.sin(np.pi * x / street.width))
    points = np.concatenate([np.stack([x, curve], 1), _box(0, 0, street.width, street.height)[2:]])
    street.paint('ego vehicle', points, street.rng.uniform(0.05, 0.3) * np.ones(3), 0.1)


def _on_road(street: Street, vanishing: np.ndarray, side: float, depth: float) -> np.ndarray:
    """Returns the point `side` pixels off the middle at the bottom edge, `depth` from the horizon.

    A `depth` of 1 is the bottom edge, 0 is where the street ends.
    """
    bottom = np.array([vanishing[0] + side, street.height])
    return vanishing + depth * (bottom - vanishing)


def _extent(opacity: np.ndarray) -> float:
    rows = np.nonzero(opacity.max(1) > 0.5)[0]
    return float(rows[-1] - rows[0] + 1)


def _lowest(opacity: np.ndarray) -> float:
    return float(np.nonzero(opacity.max(1) > 0.5)[0][-1])


def _box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
