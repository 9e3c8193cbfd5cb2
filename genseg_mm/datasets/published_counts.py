"""How much the complete datasets have: published numbers, each with its source.

A dataset answers for itself, so that a subclass keeps the answers: ``published_counts()`` yields what a copy has beside
what is published (:class:`Count`), and ``published_items()``, where that is something else, how many items the complete
dataset has. ``genseg_mm/launch/expected_items.py`` asks them; a dataset without these methods has no known counts.

UNCONFIRMED marks those that we have from memory or from one weak source; they are in ``UNCONFIRMED`` by name of the
table, so that messages can say so.
"""

from typing import Any, NamedTuple


class Count(NamedTuple):
    """One number of a copy beside the published one.

    Attributes:
        found: In the copy.
        what: Of what: 'pictures', 'sentences', 'instances', ...
        published: Of the complete dataset.
        confirmed: Whether we have read the published number in its source.
        note: Added to the message in brackets.
    """

    found: int
    what: str
    published: int
    confirmed: bool = True
    note: str = ''


def num_pictures(dataset: Any) -> int:
    """Different pictures among the items."""
    return len({dataset.get_data_info(index)['img_id'] for index in range(len(dataset))})


def exclusion_note(dataset: Any) -> str:
    """Note of a count where ``exclude_images`` leaves some out."""
    return 'exclude_images leaves some out' if dataset.exclude_images else ''


# cocodataset.org
COCO_IMAGES = {'instances_train2017.json': 118_287, 'instances_val2017.json': 5_000}
# apple/ml-hypersim, metadata_images_split_scene_v1.csv
HYPERSIM_FRAMES = {'train': 59_543, 'val': 7_386, 'test': 7_690, None: 74_619}
# Of all scenes, per variation and camera (total of the official page)
VKITTI2_FRAMES, VKITTI2_SCENES = 2_126, 5
# By refs file and split: references (objects) and their sentences, None where no number is published. CRIS
# utils/dataset.py, the TFDS catalog, notebooks of lichengunc/refer; sentences of single splits of RefCOCO+ and RefCOCOg
# agree with the published totals.
REFER_COUNTS = {
    'refcoco/refs(unc).p': dict(
        train=(42_404, 120_624), val=(3_811, 10_834), testA=(1_975, 5_657), testB=(1_810, 5_095)
    ),
    'refcoco/refs(google).p': dict(train=(40_000, None), val=(5_000, None), test=(5_000, None)),
    'refcoco+/refs(unc).p': dict(
        train=(42_278, 120_191), val=(3_805, 10_758), testA=(1_975, 5_726), testB=(1_798, 4_889)
    ),
    'refcocog/refs(umd).p': dict(train=(42_226, 80_512), val=(2_573, 4_896), test=(5_023, 9_602)),
    'refcocog/refs(google).p': dict(train=(44_822, 85_474), val=(5_000, 9_536)),
}
# gRefCOCO's sentences are published for all splits together (278,232), its pictures are those of RefCOCO (UNC).
GREFCOCO_IMAGES = dict(train=16_994, val=1_500, testA=750, testB=750)
# LISA, README
REASONSEG_IMAGES = dict(train=239, val=200, test=779)
# UNCONFIRMED: the paper's supplement has 135 unseen pictures, other readers 718 in all; the movements' own numbers
# are not published.
DRAM_IMAGES = dict(dram=583, unseen=135, dram_with_unseen=718)
# 11,243 in the paper, which is train + val + test_indomain; UNCONFIRMED: the splits, and the 500 of test_outdomain.
EGOHOS_IMAGES = dict(train=8_993, val=1_124, test_indomain=1_126, test_outdomain=500)
# iShape paper and README: pictures and instances of train and val together (12,870 and 175,840 in all). The sizes of
# train and val are not published.
ISHAPE_TOTALS = dict(
    antenna=(370, 3_036),
    branch=(2_500, 26_046),
    fence=(2_500, 7_870),
    hanger=(2_500, 49_275),
    log=(2_500, 72_144),
    wire=(2_500, 17_469),
)
# By version and split. 1: bywang2018/security-dataset, README: 29,457 + 18,220 test pictures; UNCONFIRMED: how many
# of those are easy, hard and hidden (the three add up). 2: lutao2021/PIDray, README.
PIDRAY_IMAGES = {
    1: dict(train=29_457, easy=9_482, hard=3_733, hidden=5_005),
    2: dict(train=76_913, easy=24_758, hard=9_746, hidden=13_069),
}
# BSDS500: genseg_mm/datasets/edges/bsds500.py
# (class of dataset, split) whose number above is UNCONFIRMED
UNCONFIRMED = {
    *(('DRAMDataset', name) for name in DRAM_IMAGES),
    *(('EgoHOSDataset', name) for name in EGOHOS_IMAGES),
    *(('PIDRayDataset', 1, name) for name in ('easy', 'hard', 'hidden')),
}
