"""The tables of numbers."""

from collections.abc import Mapping, Sequence

from genseg_mm.leaderboard.page.tags import Markup, join, tag
from genseg_mm.leaderboard.reported_rows import STATUSES
from genseg_mm.leaderboard.table_spec import TableSpec
from genseg_mm.leaderboard.tables import GROUPS, NOT_RUN, UNPUBLISHED, Cell, Row, Table

DASH = '–'
MARKS = {
    'measured': 'by this package: the number links to its run',
    'control': 'measured, knows nothing about objects: what a number is worth beside it',
    **{status: f'published, {meaning}' for status, meaning in STATUSES.items()},
}


def table_section(table: Table, number: int, anchors: Mapping[tuple[str, str], str]) -> Markup:
    """A table with its heading, notes and the rows of other protocols below.

    Args:
        table: To show.
        number: For ids that are unique on the page.
        anchors: Id of the details of each record, by (model, benchmark).
    """
    spec, apart = table.spec, table.group('apart')
    main = [row for row in table.rows if row.group != 'apart']
    parts: list[object] = [tag('h2', spec.title)]
    if spec.note:
        parts.append(tag('p', spec.note, class_='note'))
    parts.append(tag('p', _rule(table), class_='rule'))
    unranked = table.why_unranked()
    if unranked:
        parts.append(tag('p', unranked, class_='unranked'))
    if main:
        parts.append(_scroller(_main_table(table, main, anchors), f'{spec.title}, ranked'))
    else:
        parts.append(tag('p', 'Nothing is measured yet.', class_='note'))
    parts.append(_problems(table))
    if apart:
        parts += [
            tag('h3', GROUPS['apart']),
            tag('p', _why_apart(spec), class_='note'),
            _scroller(_apart_table(table, apart), f'{spec.title}, other protocols'),
        ]
    parts += [_footnotes(table)]
    return tag('section', *parts, id=f'table-{number}', class_='board')


def mark(kind: str) -> Markup:
    """The small label that says where a row comes from."""
    return tag('span', kind, class_=f'mark {kind}')


def heading(text: str, number: bool, first: str, sorted_: str | None = None, class_: str = '') -> Markup:
    """A column heading that sorts by click or key.

    Args:
        text: Shown.
        number: Whether the column holds numbers.
        first: Direction of the first click.
        sorted_: Direction in which the column is sorted already.
        class_: One more class.
    """
    *words, last = text.split()
    arrow = tag('span', class_='arrow', aria_hidden='true')
    words = [tag('span', word, class_='word') for word in words]
    words.append(tag('span', last, arrow, class_='word'))  # the arrow never stands alone
    button = tag('button', join(words, ' '), type='button')
    kind = f'{"number" if number else "text"} {class_}'.rstrip()
    return tag('th', button, scope='col', class_=kind, data_first=first, aria_sort=sorted_)


def _rule(table: Table) -> str:
    spec = table.spec
    by = f'by {spec.rank_by}' if spec.rank_by else 'by the mean of the ranks over all columns'
    if len(spec.columns) == 1:
        by = f'by {spec.columns[0].name}'
    rule = '' if table.why_unranked() else f'Ranked {by}, numbers as shown; a row that lacks one of them has no place.'
    if spec.protocol:
        rule = f'Protocol: {spec.protocol}. {rule}'
    published = [row for row in table.rows if not row.measured]
    if published and all(row.group == 'apart' for row in published):
        rule += ' No published row is of this protocol, so all of them stand apart.'
    return rule


def _why_apart(spec: TableSpec) -> str:
    what = f'another protocol than "{spec.protocol}"' if spec.protocol else 'another protocol'
    return f'Published numbers of {what}, derived or unconfirmed ones: to be read, not compared with the numbers above.'


def _scroller(content: Markup, label: str) -> Markup:
    """Lets a wide table scroll by itself, by keyboard too, so that the page never does."""
    return tag('div', content, class_='scroll', role='region', tabindex='0', aria_label=label)


def _column_headings(spec: TableSpec) -> list[Markup]:
    headings = []
    for column in spec.columns:
        text = column.name if column.unit in ('%', '') else f'{column.name} ({column.unit})'
        headings.append(heading(text, True, 'ascending' if column.better == 'lower' else 'descending'))
    return headings


def _main_table(table: Table, rows: Sequence[Row], anchors: Mapping[tuple[str, str], str]) -> Markup:
    spec, widths = table.spec, _decimals(rows)
    ranked = any(row.place for row in rows)
    head = tag(
        'tr',
        heading('#', True, 'ascending', 'ascending' if ranked else None, class_='place'),
        heading('Method', False, 'ascending'),
        *_column_headings(spec),
        heading('Source', False, 'ascending'),
    )
    bodies = []
    for group in ('ranked', 'incomplete', 'control'):
        own = [row for row in rows if row.group == group]
        lines = [_main_line(spec, row, widths, anchors) for row in own]
        if own and group != 'ranked':
            lines.insert(0, _group_line(GROUPS[group], len(spec.columns) + 3))
        if own:
            bodies.append(tag('tbody', *lines, class_=group))
    caption = tag('caption', f'{spec.title}: measured and published numbers')
    return tag('table', caption, tag('thead', head), *bodies, class_='sortable scores')


def _main_line(spec: TableSpec, row: Row, widths: Sequence[int], anchors: Mapping[tuple[str, str], str]) -> Markup:
    if row.place:
        place = tag('td', row.place, class_='place', data_value=row.place)
    else:
        place = tag('td', tag('abbr', DASH, title=_why_no_place(spec, row)), class_='place')
    cells = [_cell(cell, width, anchors) for cell, width in zip(row.cells, widths, strict=True)]
    return tag('tr', place, _method(row), *cells, _source(row, anchors), class_='ours' if row.measured else None)


def _why_no_place(spec: TableSpec, row: Row) -> str:
    if row.group != 'ranked':
        return 'not ranked'
    lacking = [
        column.name
        for column, cell in zip(spec.columns, row.cells, strict=True)
        if column.better and spec.rank_by in (None, column.name) and cell.ranked_value() is None
    ]
    return f'no place: lacks {", ".join(lacking)}'


def _method(row: Row) -> Markup:
    kind = 'measured' if row.measured and row.status == 'model' else row.status
    name = tag('span', row.method, class_='name')
    return tag('th', name, ' ', mark(kind), scope='row', class_='method', data_value=row.method)


def _decimals(rows: Sequence[Row]) -> list[int]:
    """Most decimals of each column: shorter numbers are padded, so that the points stand under each other."""
    texts = zip(*([cell.text for cell in row.cells] for row in rows), strict=True)
    return [max(len(text.partition('.')[2]) for text in column) for column in texts]


def _cell(cell: Cell, decimals: int, anchors: Mapping[tuple[str, str], str]) -> Markup:
    if cell.missing is not None:
        return tag('td', tag('abbr', DASH, title=cell.missing), class_='number missing')
    pad = decimals - len(cell.text.partition('.')[2])
    number: object = cell.text
    if cell.best:
        number = tag('strong', number)
    if cell.record is not None:
        number = tag('a', number, href=f'#{anchors[cell.record.name]}')
    if pad:
        number = tag('span', number, class_=f'pad-{min(pad, 3)}')
    warning = None
    if cell.problem:
        story = cell.record.dataset['difference'] if cell.record else None
        title = f'{cell.problem}: {story}' if story else cell.problem
        warning = tag('span', _mark_of(cell.footnote), class_='warning', title=title)
    title = cell.published.note if cell.published and cell.published.note else None
    # The warning stands first, so that the decimal points of a column stay under each other.
    return tag('td', warning, number, class_='number', data_value=repr(cell.value), title=title)


def _mark_of(footnote: int) -> str:
    return f'⚠{footnote}'


def _problems(table: Table) -> Markup | None:
    """Footnotes of the warnings."""
    items = [
        tag('li', tag('span', _mark_of(number), class_='warning'), f' {", ".join(where)}: {problem}')
        for number, (problem, where) in enumerate(table.problems().items(), 1)
    ]
    return tag('ul', *items, class_='problems') if items else None


def _source(row: Row, anchors: Mapping[tuple[str, str], str]) -> Markup:
    if not row.measured:
        note = tag('span', '; '.join(row.notes), class_='remark') if row.notes else None
        return tag('td', '; '.join(row.sources), note, class_='source')
    record = max((cell.record for cell in row.cells if cell.record), key=lambda one: one.started)
    link = tag('a', 'run details', href=f'#{anchors[record.name]}')
    return tag('td', link, f', {record.started:%Y-%m-%d}', class_='source')


def _group_line(text: str, span: int) -> Markup:
    inner = tag('span', text)
    return tag('tr', tag('th', inner, colspan=span, scope='rowgroup'), class_='group')


def _apart_table(table: Table, rows: Sequence[Row]) -> Markup:
    spec, widths = table.spec, _decimals(rows)
    head = tag(
        'tr', heading('Method', False, 'ascending'), *_column_headings(spec), heading('Source', False, 'ascending')
    )
    bodies = []
    for protocol in dict.fromkeys(row.protocol for row in rows):
        lines = [_group_line(f'Protocol: {protocol}', len(spec.columns) + 2)]
        for row in rows:
            if row.protocol == protocol:
                cells = [_cell(cell, width, {}) for cell, width in zip(row.cells, widths, strict=True)]
                lines.append(tag('tr', _method(row), *cells, _source(row, {})))
        bodies.append(tag('tbody', *lines))
    caption = tag('caption', f'{spec.title}: published numbers of other protocols, not ranked')
    return tag('table', caption, tag('thead', head), *bodies, class_='sortable scores apart')


def _footnotes(table: Table) -> Markup | None:
    reasons: dict[str, list[str]] = {}
    for row in table.rows:
        for column, cell in zip(table.spec.columns, row.cells, strict=True):
            if cell.missing is not None:
                reasons.setdefault(cell.missing, []).append(f'{row.method} ({column.name})')
    items = []
    unpublished = reasons.pop(UNPUBLISHED, [])
    if unpublished:
        text = f'{DASH} of a published row: {UNPUBLISHED} ({len(unpublished)} numbers).'
        items.append(tag('li', text))
    not_run = [f'{title} (all columns)' for title in table.not_run]
    if not_run:
        reasons[NOT_RUN] = reasons.get(NOT_RUN, []) + not_run
    for reason, where in reasons.items():
        items.append(tag('li', f'{reason[:1].upper()}{reason[1:]}: {", ".join(where)}.'))
    if table.elsewhere:
        items.append(tag('li', f'{table.elsewhere} published numbers belong to columns that this table does not have.'))
    if not items:
        return None
    return tag('details', tag('summary', 'What is missing'), tag('ul', join(items)), class_='footnotes')
