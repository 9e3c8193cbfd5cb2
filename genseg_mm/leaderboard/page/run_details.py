"""Where each measured number comes from: hashes, data, versions, time, command, pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

from genseg_mm.leaderboard.page.pictures import Embedded, embed
from genseg_mm.leaderboard.page.score_tables import DASH, heading
from genseg_mm.leaderboard.page.tags import Markup, tag
from genseg_mm.leaderboard.record import Record
from genseg_mm.leaderboard.record_schema import KEYS, PICTURES


def anchors_of(records: Sequence[Record]) -> dict[tuple[str, str], str]:
    """An id on the page for every record, by (model, benchmark)."""
    return {record.name: f'run-{number}' for number, record in enumerate(records, 1)}


def runs_section(
    records: Sequence[Record], anchors: Mapping[tuple[str, str], str], metrics: Mapping[str, Sequence[str]]
) -> Markup:
    """Details of all runs, by model.

    Args:
        records: To show.
        anchors: Id of each record.
        metrics: Those that the tables show, by benchmark: they stand in the line of a run that is not opened.
    """
    parts: list[object] = [
        tag('h2', 'Runs'),
        tag(
            'p',
            'Every measured number again, with what is needed to measure it once more. Open a run for its hashes, '
            'data, versions, time, command and example pictures.',
            class_='note',
        ),
    ]
    for model in dict.fromkeys(record.model['name'] for record in records):
        own = [record for record in records if record.model['name'] == model]
        parts.append(tag('h3', own[0].model['title']))
        for record in own:
            names = metrics.get(record.benchmark['name'], ())
            parts.append(_run(record, anchors[record.name], names))
    return tag('section', *parts, id='runs', class_='runs')


def times_section(records: Sequence[Record], anchors: Mapping[tuple[str, str], str]) -> Markup:
    """A table of the time per item, split into model, data and metric."""
    texts = ('Model', 'Benchmark')
    numbers = ('model (ms)', 'data (ms)', 'metric (ms)', 'outside the model (%)', 'items')
    head = [heading(text, False, 'ascending') for text in texts]
    head += [heading(text, True, 'descending') for text in numbers]
    lines = []
    for record in records:
        times = record.run['seconds_per_item']
        values = [1000 * times[key] for key in ('model', 'data', 'metric')]
        share = _outside(times)
        cells = [_number(value, f'{value:.1f}') for value in values]
        cells.append(_number(share, DASH if share is None else f'{share:.1f}'))
        cells.append(_number(record.dataset['items'], f'{record.dataset["items"]:,}'))
        name = record.model['title']
        link = tag('a', record.benchmark['title'], href=f'#{anchors[record.name]}')
        lines.append(
            tag(
                'tr',
                tag('th', tag('span', name, class_='name'), scope='row', class_='method', data_value=name),
                tag('td', link, class_='text', data_value=record.benchmark['title']),
                *cells,
            )
        )
    caption = tag('caption', 'Time per item of each run')
    table = tag('table', caption, tag('thead', tag('tr', *head)), tag('tbody', *lines), class_='sortable scores times')
    return tag(
        'section',
        tag('h2', 'Time per item'),
        tag('p', 'Wall-clock time on the hardware of the run, so compare only equal hardware.', class_='note'),
        tag('div', table, class_='scroll', role='region', tabindex='0', aria_label='Time per item'),
        id='times',
        class_='board',
    )


def _number(value: float | None, text: str) -> Markup:
    return tag('td', text, class_='number', data_value=None if value is None else repr(value))


def _outside(times: Mapping[str, float]) -> float | None:
    total = sum(times[key] for key in ('model', 'data', 'metric'))
    return 100 * (times['data'] + times['metric']) / total if total > 0 else None


def _run(record: Record, anchor: str, names: Sequence[str]) -> Markup:
    names = [name for name in names if name in record.metrics] or list(record.metrics)[:3]
    numbers = ', '.join(f'{name} {_metric(record.metrics[name])}' for name in names)
    more = len(record.metrics) - len(names)
    if more > 0:
        numbers += f' and {more} more'
    summary: list[object] = [
        tag('span', record.benchmark['title'], class_='name'),
        ' ',
        tag('span', numbers, class_='numbers'),
    ]
    if record.incomplete:
        summary += [' ', tag('span', f'⚠ {record.incomplete}', class_='warning')]
    return tag(
        'details',
        tag('summary', *summary),
        tag('div', _facts(record), _metrics(record), _pictures(record), class_='body'),
        id=anchor,
        class_='run',
    )


def _metric(value: float) -> str:
    return 'undefined' if value != value else f'{value:.2f}'


def _metrics(record: Record) -> Markup:
    pairs = []
    for name, value in record.metrics.items():
        text = 'undefined' if value != value else f'{value:.10g}'
        pairs.append(tag('div', tag('dt', name), tag('dd', text)))
    return tag('div', tag('h4', 'All metrics'), tag('dl', *pairs, class_='metrics'))


def _facts(record: Record) -> Markup:
    model, data, run = record.model, record.dataset, record.run
    times = run['seconds_per_item']
    split = ', '.join(f'{key} {1000 * times[key]:.4g} ms' for key in ('model', 'data', 'metric'))
    share = _outside(times)
    if share is not None:
        split += f' ({share:.1f} % outside the model)'
    expected = '' if data['expected'] is None else f' of {data["expected"]:,} expected'
    how = 'one by one' if run['one_by_one'] else 'whole batches'
    facts = {
        'Protocol': record.benchmark['protocol'],
        'Task': record.benchmark['task'],
        'Benchmark SHA-256': _code(record.benchmark['sha256']),
        'Config': _code(model['config']),
        'Config SHA-256': _code(model['config_sha256']),
        'Checkpoint': _code(model['checkpoint']),
        'Checkpoint SHA-256': _code(model['checkpoint_sha256']),
        'Parameters': None if model['num_parameters'] is None else f'{model["num_parameters"]:,}',
        'Data': f'{data["type"]}, {data["items"]:,} items{expected}',
        'Difference': data['difference'],
        'Data fingerprint': _code(data['fingerprint']),
        'Seed': run['seed'],
        'Started': f'{record.started:%Y-%m-%d %H:%M:%S} UTC',
        'Duration': f'{run["seconds"]:,.1f} s',
        'Time per item': split,
        'Processes': f'{run["processes"]}, batch size {run["batch_size"]}, {how}, threads {run["threads"]}',
        'Hardware': f'{run["device"]}, {run["hardware"]}',
        'Packages': ', '.join(f'{name} {version}' for name, version in run['packages'].items()),
        'Commit': _code(run['commit']),
        'Command': _code(run['command']),
        'Run key': _code(run['key']),
        **_more(record),
    }
    lines = []
    for name, value in facts.items():
        if value not in (None, ''):
            lines.append(tag('div', tag('dt', name), tag('dd', value)))
    return tag('dl', *lines)


def _more(record: Record) -> dict[str, Any]:
    """What the runner said beyond the keys that every record has."""
    sections = {section: getattr(record, section) for section in KEYS}
    return {
        f'{section}: {key}': value
        for section, values in sections.items()
        for key, value in values.items()
        if key not in KEYS[section]
    }


def _code(text: str | None) -> Markup | None:
    return None if text is None else tag('code', text)


def _pictures(record: Record) -> Markup | None:
    if not record.examples:
        return None
    groups, missing = [], []
    for kind in PICTURES:
        figures = []
        for example in record.examples:
            if example['kind'] != kind:
                continue
            picture = embed(record, example['file'])
            if isinstance(picture, Embedded):
                figures.append(_figure(picture, example))
            else:
                missing.append(tag('li', picture))
        if figures:
            groups.append(tag('h4', kind.capitalize()))
            groups.append(tag('div', *figures, class_='pictures'))
    if missing:
        groups.append(tag('p', 'Pictures that are not shown:', class_='note'))
        groups.append(tag('ul', *missing))
    count = f'Example pictures ({len(record.examples)})'
    return tag('details', tag('summary', count), *groups, class_='examples')


def _figure(picture: Embedded, example: Mapping[str, Any]) -> Markup:
    image = tag(
        'img',
        src=picture.uri,
        width=picture.width,
        height=picture.height,
        alt=example['caption'],
        loading='lazy',
        decoding='async',
    )
    score, caption = example.get('score'), example['caption']
    if score is None or f'{score:.2f}' in caption:  # most captions say it themselves
        return tag('figure', image, tag('figcaption', caption))
    return tag('figure', image, tag('figcaption', tag('strong', f'{score:.2f}'), ' ', caption))
