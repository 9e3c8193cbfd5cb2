# What suites of point prompts share: the trivial controls among their models, and columns of their tables.
controls = {
    f'control_{kind}': dict(
        title=title, config=f'configs/benchmarks/control_{kind}.py', checkpoint=None, kind='control'
    )
    for kind, title in (
        ('rgb', 'control: raw image'),
        ('position', 'control: position'),
        ('oracle', 'control: true foreground, no grouping'),
    )
}
point_columns = [
    dict(name='COCO-L', benchmark='coco', metric='large_mIoU'),
    dict(name='COCO-M', benchmark='coco', metric='medium_mIoU'),
    *(
        dict(name=name, benchmark=name.lower(), metric='mIoU')
        for name in ('DRAM', 'EgoHOS', 'iShape', 'PIDRay')
    ),
]
edge_columns = [
    dict(name=f'BSDS500 {name}', benchmark='bsds500', metric=metric)
    for name, metric in (('ODS', 'ODS_F'), ('OIS', 'OIS_F'), ('AP', 'AP'))
]
instance_columns = [
    dict(name=metric, benchmark='coco_instances', metric=metric) for metric in ('AP', 'AP50', 'AR@100')
]
