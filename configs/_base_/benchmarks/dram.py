# DRAM: paintings of people, animals and things, one point per connected region. DRAM is semantic: that a connected
# region of a class is an object is our rule (instances='classes' takes all pixels of a class for one), as is the
# smallest region, 100 pixels. Which the paper (gen2seg, arXiv 2505.15263) has is not published, so its number
# compares in kind only. Pixels to ignore (255 and classes that are not evaluated) are nobody's: a mask that runs over
# them counts as wrong.
# The authors' loader leaves EXIF orientation aside, so labels lie on the pictures as they are stored.
# Layout: <root>/DRAM_processed/{test/*.txt, test/**/*.jpg, labels/**/*.png}; the root is $GENSEG_DATA (default:
# data).
dram = dict(
    task='points',
    title='DRAM',
    protocol='labelled test paintings of seen and unseen movements; an object is a connected region (8 neighbours) of '
    'one of 11 classes with at least 100 pixels, pixels to ignore are background; point: one random pixel of it, '
    'seed 0; reference rule (controls: the radius that is best on this set)',
    dataset=dict(
        type='genseg_mm.DRAMDataset',
        data_root='{{$GENSEG_DATA:data}}/DRAM_processed',
        movement='dram_with_unseen',
        instances='components',
        min_area=100,
        test_mode=True,
        pipeline=[
            dict(type='genseg_mm.LoadImage', color_type='color_ignore_orientation'),
            dict(type='model_resize'),
            dict(type='genseg_mm.LoadInstanceMap'),
            dict(type='genseg_mm.PointPrompt', mode='random', seed=0),
            dict(type='genseg_mm.PackGenSegInputs'),
        ],
    ),
    evaluator=dict(type='genseg_mm.PointPromptMetric', threshold='reference', controls=False),
    control_evaluator=dict(threshold='best'),  # that rule makes specks of a smooth map
    tolerance=0.05,
)
