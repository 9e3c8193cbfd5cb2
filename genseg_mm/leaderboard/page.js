'use strict';
// Sorts the rows of every group of a table by the clicked column; rows without a value stay last.
for (const table of document.querySelectorAll('table.sortable')) {
  table.tHead.addEventListener('click', (event) => {
    const head = event.target.closest('th');
    if (!head || !event.target.closest('button')) return;
    const heads = [...head.parentElement.children];
    const column = heads.indexOf(head);
    const number = head.classList.contains('number');
    const other = { ascending: 'descending', descending: 'ascending' };
    const order = other[head.getAttribute('aria-sort')] || head.dataset.first;
    const sign = order === 'ascending' ? 1 : -1;
    for (const one of heads) one.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', order);
    const value = (row) => {
      const cell = row.children[column];
      const text = cell.dataset.value ?? (number ? '' : cell.textContent);
      return number ? (text === '' ? null : Number(text)) : text;
    };
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * (number ? x - y : x.localeCompare(y, 'en', { numeric: true }));
    };
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => !row.classList.contains('group'));
      body.append(...rows.sort(compare));
    }
  });
}
// A link to a run opens it.
const openTarget = () => {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (!target) return;
  for (let one = target; one; one = one.parentElement) if (one.tagName === 'DETAILS') one.open = true;
  target.scrollIntoView();
};
addEventListener('hashchange', openTarget);
openTarget();
