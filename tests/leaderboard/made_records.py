"""Records and suites for the leaderboard's tests: made up, but of the real form."""

from genseg_mm.leaderboard import Record

STARTED = '2026-03-04T05:06:07+00:00'


def make_record(model='ours', benchmark='dram', metrics=None, **changes) -> Record:
    """A valid record; `changes` are keys of its sections, e.g. kind='control', items=6, fingerprint='f2'."""
    data = dict(
        schema=1,
        model=dict(
            name=model,
            title=changes.pop('title', model.capitalize()),
            kind='model',
            config=f'configs/{model}.py',
            config_sha256='c0' * 32,
            checkpoint=f'work_dirs/{model}.pth',
            checkpoint_sha256='ab' * 32,
            num_parameters=1234567,
        ),
        benchmark=dict(
            suite='made',
            name=benchmark,
            title=benchmark.upper(),
            task='points',
            protocol='one random pixel, seed 0',
            sha256='be' * 32,
            tolerance=None,
        ),
        metrics={'mIoU': 48.25} if metrics is None else metrics,
        dataset=dict(
            type='genseg_mm.DRAMDataset',
            items=718,
            expected=718,
            difference=None,
            incomplete=f'{changes["items"]} of 718 items' if 'items' in changes else None,
            fingerprint='f1',
        ),
        run=dict(
            key=f'{model}-{benchmark}',
            seed=0,
            started=STARTED,
            seconds=78.5,
            seconds_per_item=dict(model=0.0412, data=0.0031, metric=0.0057),
            processes=1,
            batch_size=4,
            one_by_one=True,
            threads=1,
            device='cpu',
            hardware='2 cores of a test machine',
            packages=dict(torch='2.13.0', numpy='2.2.6'),
            commit='999567d',
            command=f'python tools/benchmark.py configs/benchmarks/made.py {model}',
        ),
        examples=changes.pop('examples', []),
    )
    folder = changes.pop('folder', None)
    for key, value in changes.items():
        section = next(part for part in ('model', 'benchmark', 'dataset', 'run') if key in data[part])
        data[section][key] = value
    return Record.from_dict(data, folder=folder)


def make_suite(columns=('DRAM', 'iShape'), models=('ours', 'theirs'), **table) -> dict:
    """A suite of point benchmarks with one table; column X is the mIoU of benchmark x."""
    names = [column.lower() for column in columns]
    spec = dict(
        name='points',
        title='One point per object',
        columns=[dict(name=column, benchmark=name, metric='mIoU') for column, name in zip(columns, names, strict=True)],
    )
    return dict(
        suite=dict(name='made', title='Made-up suite'),
        models={name: dict(title=name.capitalize(), tasks=('points',)) for name in models},
        benchmarks={name: dict(task='points', protocol='one random pixel, seed 0') for name in names},
        tables=[{**spec, **table}],
    )
