"""Names and ids of the classes of the real datasets, as far as their files need them."""

from __future__ import annotations

# COCO's 80 categories in order; its ids run from 1 to 90 and leave ten of them out.
_COCO = (  # noqa: SIM905 (eighty quoted words are no easier to read)
    'person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, '
    'fire hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, '
    'bear, zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, '
    'sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, '
    'bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, '
    'carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, '
    'tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, '
    'refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush'
).split(', ')
_UNUSED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO_IDS = dict(zip(_COCO, sorted(set(range(1, 91)) - _UNUSED)))
COCO_DRAWN = ('sports ball', 'stop sign', 'kite', 'traffic light', 'clock', 'surfboard')

# Ids of VOC's classes that are drawn.
VOC_IDS = {
    'bird': 3, 'boat': 4, 'bottle': 5, 'bus': 6, 'car': 7, 'person': 15, 'pottedplant': 16,
    'tvmonitor': 20,
}  # fmt: skip

# Cityscapes' ids of its 19 training classes, in their order; every other id is 255 there.
CITYSCAPES_TRAIN_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

# Folder, class id among ImageNet's 1000 classes, and the thing that is drawn for it.
IMAGENET = (
    ('n02708093', 409, 'clock'),  # analog clock
    ('n03782006', 664, 'tvmonitor'),  # monitor
    ('n03991062', 738, 'pottedplant'),  # flowerpot
    ('n04146614', 779, 'bus'),  # school bus
    ('n04254680', 805, 'sports ball'),  # soccer ball
    ('n04285008', 817, 'car'),  # sports car
    ('n04591713', 907, 'bottle'),  # wine bottle
    ('n04612504', 914, 'boat'),  # yawl
    ('n06794110', 919, 'stop sign'),  # street sign
    ('n06874185', 920, 'traffic light'),
)

# UCF-101's classes in their order; a label is the place in it, counted from 0.
UCF101 = (  # noqa: SIM905 (a hundred quoted words are no easier to read)
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
