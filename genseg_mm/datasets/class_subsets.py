"""Lists of classes for configs: COCO's, the novel ones of gen2seg's evaluation, small subsets for its ablation.

gen2seg (arXiv 2505.15263) prompts COCO objects of classes "not seen" in Hypersim and Virtual KITTI 2, and trains on
only 10 and only 5 classes. It publishes none of these lists. Those here are ours, chosen as said at each; a number made
with them compares with the paper's in kind, not to the digit.

In a config they go by name: ``CocoInstanceDataset(classes='coco_novel')``, ``KeepClasses(classes='hypersim_10')``. A
list of one's own may be written there as well.
"""

from collections.abc import Sequence

COCO_CLASSES = (
    'person', 'bicycle', 'car', 'motorcycle', 'airplane', 'bus', 'train', 'truck', 'boat', 'traffic light',
    'fire hydrant', 'stop sign', 'parking meter', 'bench', 'bird', 'cat', 'dog', 'horse', 'sheep', 'cow',
    'elephant', 'bear', 'zebra', 'giraffe', 'backpack', 'umbrella', 'handbag', 'tie', 'suitcase', 'frisbee',
    'skis', 'snowboard', 'sports ball', 'kite', 'baseball bat', 'baseball glove', 'skateboard', 'surfboard',
    'tennis racket', 'bottle', 'wine glass', 'cup', 'fork', 'knife', 'spoon', 'bowl', 'banana', 'apple',
    'sandwich', 'orange', 'broccoli', 'carrot', 'hot dog', 'pizza', 'donut', 'cake', 'chair', 'couch',
    'potted plant', 'bed', 'dining table', 'toilet', 'tv', 'laptop', 'mouse', 'remote', 'keyboard', 'cell phone',
    'microwave', 'oven', 'toaster', 'sink', 'refrigerator', 'book', 'clock', 'vase', 'scissors', 'teddy bear',
    'hair drier', 'toothbrush',
)  # fmt: skip

# Hypersim's semantic ids (NYU40); -1, read as 0, has no label. Spelling as published.
NYU40_CLASSES = (
    'wall', 'floor', 'cabinet', 'bed', 'chair', 'sofa', 'table', 'door', 'window', 'bookshelf', 'picture',
    'counter', 'blinds', 'desk', 'shelves', 'curtain', 'dresser', 'pillow', 'mirror', 'floor mat', 'clothes',
    'ceiling', 'books', 'refridgerator', 'television', 'paper', 'towel', 'shower curtain', 'box', 'whiteboard',
    'person', 'night stand', 'toilet', 'sink', 'lamp', 'bathtub', 'bag', 'otherstructure', 'otherfurniture',
    'otherprop',
)  # fmt: skip

# COCO classes that training on Hypersim and Virtual KITTI 2 may have shown, with the reason. In doubt a class is
# here: an object wrongly called novel would flatter the model, a novel one left out only makes the set smaller.
COCO_SEEN = {
    **dict.fromkeys(('car', 'truck'), 'Virtual KITTI 2 labels cars, trucks and vans'),
    'bus': 'looks like the vans of Virtual KITTI 2',
    'chair': 'NYU40 chair',
    'bench': 'looks like NYU40 chair and sofa',
    'couch': 'NYU40 sofa',
    'bed': 'NYU40 bed',
    'dining table': 'NYU40 table',
    'toilet': 'NYU40 toilet',
    'sink': 'NYU40 sink',
    'refrigerator': 'NYU40 refridgerator',
    'tv': 'NYU40 television',
    'book': 'NYU40 books',
    **dict.fromkeys(('backpack', 'handbag', 'suitcase'), 'NYU40 bag'),
    **dict.fromkeys(('microwave', 'oven', 'toaster'), 'kitchens of Hypersim (NYU40 otherprop, otherfurniture)'),
    **dict.fromkeys(('laptop', 'mouse', 'remote', 'keyboard', 'cell phone'), 'desks of Hypersim (NYU40 otherprop)'),
    **dict.fromkeys(
        ('bottle', 'wine glass', 'cup', 'fork', 'knife', 'spoon', 'bowl'), 'tableware of Hypersim (NYU40 otherprop)'
    ),
    **dict.fromkeys(('banana', 'apple', 'orange'), 'fruit bowls of Hypersim (NYU40 otherprop)'),
    **dict.fromkeys(('potted plant', 'vase', 'clock', 'teddy bear'), 'decoration of Hypersim (NYU40 otherprop)'),
    **dict.fromkeys(('scissors', 'hair drier', 'toothbrush'), 'small things of Hypersim (NYU40 otherprop)'),
}
# People, animals, sports, street furniture, other vehicles, prepared food, clothing.
COCO_NOVEL = tuple(name for name in COCO_CLASSES if name not in COCO_SEEN)

# Only-10-classes and only-5-classes training. Hypersim: NYU40 ids, applied by ``KeepClasses``; the movable things
# that most rooms have, so that few frames become empty. Of Virtual KITTI 2 nothing is dropped: its ids are vehicles,
# one class more. The 5 are of the 10, so that the ablation only takes away.
HYPERSIM_10_CLASSES = (5, 7, 6, 4, 35, 3, 11, 18, 23, 25)  # to these come vehicles
HYPERSIM_5_CLASSES = (5, 7, 6, 4, 35)  # chair, table, sofa, bed, lamp
# COCO: the same idea, the nearest classes where COCO has them.
COCO_10_CLASSES = (
    'chair', 'dining table', 'couch', 'bed', 'car',
    'tv', 'book', 'potted plant', 'bottle', 'truck',
)  # fmt: skip
COCO_5_CLASSES = COCO_10_CLASSES[:5]

CLASS_LISTS = dict(
    coco=COCO_CLASSES,
    coco_novel=COCO_NOVEL,
    coco_10=COCO_10_CLASSES,
    coco_5=COCO_5_CLASSES,
    hypersim_10=HYPERSIM_10_CLASSES,
    hypersim_5=HYPERSIM_5_CLASSES,
)


def class_list(classes: str | Sequence, start: str) -> tuple:
    """The list of that name, or the given list as a tuple.

    Args:
        classes: A name of ``CLASS_LISTS`` or a list.
        start: What the name must start with: 'coco' or 'hypersim'.

    Raises:
        ValueError: If there is no such list, or the given one is empty.
    """
    known = [name for name in CLASS_LISTS if name.startswith(start)]
    if isinstance(classes, str):
        if classes not in known:
            raise ValueError(f'classes must be one of {known} or a list, but got {classes!r}')
        return CLASS_LISTS[classes]
    if not classes:
        raise ValueError(f'classes must not be empty: give one of {known} or a list')
    return tuple(classes)
