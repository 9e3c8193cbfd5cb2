"""RandomReferringFlip: pictures, masks and words, worked out by hand."""

import numpy as np
import pytest

from genseg_mm.datasets.transforms.referring import RandomReferringFlip


def sample(text: str, **more) -> dict:
    mask = np.array([[1, 0, 0], [1, 255, 0]], np.uint8)
    image = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    return {**dict(img=image, gt_seg_map=mask, text=text, sample_idx=4, visit=2), **more}


@pytest.mark.parametrize(
    ('text', 'mirrored'),
    [
        ('left man', 'right man'),
        ('the man to the left of the right car', 'the man to the right of the left car'),
        ('leftmost, then rightmost', 'rightmost, then leftmost'),
        ('left-hand side; his right hand', 'right-hand side; his left hand'),
        ('LEFT guy, Right girl, Leftmost', 'RIGHT guy, Left girl, Rightmost'),
        ('bright copyright, upright, cleft, leftover', 'bright copyright, upright, cleft, leftover'),
        ("left's best_left 2left", "right's best_right 2left"),
        ('the red one', 'the red one'),
        ('right now it is right behind', 'left now it is left behind'),  # the odd texts it warns of
        ('', ''),
    ],
)
def test_words(text, mirrored):
    flip = RandomReferringFlip(prob=1.0)
    assert flip.swap(text) == mirrored
    assert flip(sample(text))['text'] == mirrored
    if '2left' not in text:
        assert flip.swap(mirrored) == text


def test_picture_and_masks_are_mirrored():
    results = RandomReferringFlip(prob=1.0)(sample('left', gt_instance_map=np.array([[1, 2, 3]], np.int32)))
    assert results['gt_seg_map'].tolist() == [[0, 0, 1], [0, 255, 1]]
    assert results['img'][0].tolist() == [[6, 7, 8], [3, 4, 5], [0, 1, 2]]
    assert results['gt_instance_map'].tolist() == [[3, 2, 1]]
    assert (results['flip'], results['flip_direction']) == (True, 'horizontal')


def test_nothing_happens_at_zero():
    before = sample('left')
    results = RandomReferringFlip(prob=0.0)(dict(before))
    assert (results['img'] == before['img']).all()
    assert (results['gt_seg_map'] == before['gt_seg_map']).all()
    assert (results['text'], results['flip'], results['flip_direction']) == ('left', False, None)


@pytest.mark.parametrize('text', ['the lft man', 'guy on r', "bird at 3 O'Clock", 'clockwise'])
def test_texts_that_cannot_be_mirrored_are_kept(text):
    results = RandomReferringFlip(prob=1.0)(sample(f'{text} left'))
    assert (results['text'], results['flip']) == (f'{text} left', False)
    assert results['gt_seg_map'][0].tolist() == [1, 0, 0]


def test_draw_follows_seed_sample_and_visit():
    flip = RandomReferringFlip(seed=5)
    drawn = [flip(sample('x', sample_idx=i, visit=v))['flip'] for i in range(40) for v in range(50)]
    np.random.seed(0)  # the global state plays no part
    again = [
        RandomReferringFlip(seed=5)(sample('x', sample_idx=i, visit=v))['flip'] for i in range(40) for v in range(50)
    ]
    assert drawn == again
    assert abs(sum(drawn) - 1000) < 5 * np.sqrt(2000 / 4)  # 5 sigma of 2000 even draws
    other = [
        RandomReferringFlip(seed=6)(sample('x', sample_idx=i, visit=v))['flip'] for i in range(40) for v in range(50)
    ]
    same = sum(a == b for a, b in zip(drawn, other, strict=True))
    assert abs(same - 1000) < 5 * np.sqrt(2000 / 4)
    rare = RandomReferringFlip(prob=0.1)
    flips = sum(rare(sample('x', visit=v))['flip'] for v in range(2000))
    assert abs(flips - 200) < 5 * np.sqrt(2000 * 0.09)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(visit=None), r"lacks \['visit'\] of a\.jpg: .*test_mode=False"),
        (dict(gt_seg_map=None), r"lacks \['gt_seg_map'\] of a\.jpg: it goes after LoadImage"),
        (dict(expression='x'), r"cannot mirror \['expression'\] of a\.jpg: it goes before TextPrompt"),
        (dict(image_latents=np.zeros(1)), r"cannot mirror \['image_latents'\]"),
    ],
)
def test_samples_that_do_not_fit(change, message):
    whole = {**sample('left', img_path='a.jpg'), **change}
    whole = {key: value for key, value in whole.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        RandomReferringFlip()(whole)


def test_prob_must_be_one():
    with pytest.raises(ValueError, match=r'prob must lie in \[0, 1\], but got 1\.5'):
        RandomReferringFlip(prob=1.5)
