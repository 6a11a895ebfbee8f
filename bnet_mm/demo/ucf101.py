"""Writes drawn clips, as encoded videos, in MMAction2's layout of UCF-101, split 1."""

from pathlib import Path

import cv2
import numpy as np

from bnet_mm.demo.clip import ACTIONS, draw_clip
from bnet_mm.demo.folder import write_folder
from bnet_mm.errors import InputError

SIZE = (240, 320)  # height, width: UCF-101's own
FRAMES, FRAMES_PER_SECOND = 40, 25
CLIPS_PER_GROUP = 4

# UCF-101's classes in their order; a label is the place in it, counted from 0.
CLASSES = (  # noqa: SIM905 (a hundred quoted words are no easier to read)
    'ApplyEyeMakeup ApplyLipstick Archery BabyCrawling BalanceBeam BandMarching BaseballPitch '
    'Basketball BasketballDunk BenchPress Biking Billiards BlowDryHair BlowingCandles '
    'BodyWeightSquats Bowling BoxingPunchingBag BoxingSpeedBag BreastStroke BrushingTeeth '
    'CleanAndJerk CliffDiving CricketBowling CricketShot CuttingInKitchen Diving Drumming Fencing '
    'FieldHockeyPenalty FloorGymnastics FrisbeeCatch FrontCrawl GolfSwing Haircut Hammering '
    'HammerThrow HandstandPushups HandstandWalking HeadMassage HighJump HorseRace HorseRiding '
    'HulaHoop IceDancing JavelinThrow JugglingBalls JumpingJack JumpRope Kayaking Knitting '
    'LongJump Lunges MilitaryParade Mixing MoppingFloor Nunchucks ParallelBars PizzaTossing '
    'PlayingCello PlayingDaf PlayingDhol PlayingFlute PlayingGuitar PlayingPiano PlayingSitar '
    'PlayingTabla PlayingViolin PoleVault PommelHorse PullUps Punch PushUps Rafting '
    'RockClimbingIndoor RopeClimbing Rowing SalsaSpin ShavingBeard Shotput SkateBoarding Skiing '
    'Skijet SkyDiving SoccerJuggling SoccerPenalty StillRings SumoWrestling Surfing Swing '
    'TableTennisShot TaiChi TennisSwing ThrowDiscus TrampolineJumping Typing UnevenBars '
    'VolleyballSpiking WalkingWithDog WallPushups WritingOnBoard YoYo'
).split()


def write_ucf101(folder: str | Path, train: int = 48, val: int = 16, seed: int = 0) -> Path:
    """Draws a dataset into `folder` (`videos`, `annotations`, two split lists) and returns it.

    Four of the 101 classes have clips, in turn. For repeated and interrupted writing see
    `bnet_mm.demo.folder`.

    Raises:
        InputError: `folder` holds something else, or OpenCV has no encoder of videos.
    """

    def draw(part: Path) -> None:
        (part / 'annotations').mkdir()
        (part / 'annotations/classInd.txt').write_text(
            ''.join(f'{number} {name}\n' for number, name in enumerate(CLASSES, 1))
        )
        for split, first, count in (('train', 0, train), ('val', train, val)):
            lines = [_write_clip(part / 'videos', n, seed) for n in range(first, first + count)]
            (part / f'ucf101_{split}_split_1_videos.txt').write_text(''.join(lines))

    return write_folder(folder, {'train': train, 'val': val, 'seed': seed}, draw)


def _write_clip(videos: Path, index: int, seed: int) -> str:
    """Writes one clip and returns its line of a split list."""
    action = list(ACTIONS)[index % len(ACTIONS)]
    group, clip = divmod(index // len(ACTIONS), CLIPS_PER_GROUP)
    name = f'{action}/v_{action}_g{group + 1:02d}_c{clip + 1:02d}.avi'
    path = videos / name
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*'XVID'), FRAMES_PER_SECOND, SIZE[::-1]
    )
    if not writer.isOpened():
        raise InputError('this OpenCV cannot encode XVID videos; install opencv-python')
    rng = np.random.default_rng((seed, index, 101))
    for frame in draw_clip(rng, ACTIONS[action], FRAMES, *SIZE):
        writer.write(frame)
    writer.release()
    return f'{name} {CLASSES.index(action)}\n'
