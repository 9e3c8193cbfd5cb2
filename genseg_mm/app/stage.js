// The stage: shows the state that the server gives (props.value) and sends what a visitor does ('quick', 'chain').
const $ = (selector) => element.querySelector(selector);
const all = (selector) => [...element.querySelectorAll(selector)];
const stage = $('.stage');
const blobs = new Map();  // pictures by name, as the server calls them
let state = { kind: 'empty', rows: [], history: [], objects: [], drawn: [] };
let tool = 'object', cursor = null, corner = null, sentAt = 0, drag = null;

const make = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in made && name !== 'list') made[name] = value; else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
};
const rgb = (color, alpha = 1) => `rgba(${color.join(',')},${alpha})`;
const send = (data, event = 'quick') => { sentAt = performance.now(); stage.classList.add('busy'); trigger(event === 'quick' ? 'quick' : 'chain', data); };
const complain = (text) => { $('.problem').textContent = text || ''; };
const loaded = (url) => new Promise((done, failed) => {
  const picture = new Image();
  picture.onload = () => done(picture);
  picture.onerror = failed;
  picture.src = url;
});

// ---- showing
async function show(value) {
  if (!value || value.seq <= (state.seq || 0)) return;
  state = value;
  for (const [name, url] of Object.entries(value.blobs || {})) blobs.set(name, { url });
  const named = [value.picture?.src, ...value.history.map((one) => one.thumb), ...value.drawn, ...value.rows.flatMap((row) => [row.ids, row.map])].filter(Boolean);
  if (named.some((name) => !blobs.has(name))) { send({ do: 'refresh' }); return; }
  for (const name of [...blobs.keys()]) if (!named.includes(name)) blobs.delete(name);
  await Promise.all(named.map(async (name) => { const blob = blobs.get(name); if (blob) blob.image ??= await loaded(blob.url); }));
  if (state !== value) return;  // a newer one has come meanwhile
  stage.dataset.kind = value.kind;
  stage.classList.remove('busy');
  $('.rows').replaceChildren(...(value.picture ? value.rows.map((row, index) => panels(row, index)) : []));
  if (value.picture && !value.rows.length) $('.rows').append(panels({ model: '', what: '' }, 0));
  $('.rows').classList.toggle('several', value.rows.length > 1);
  $('.drawn').replaceChildren(...value.drawn.map((name, index) => make('figure', {},
    make('img', { src: blobs.get(name).url, alt: `drawn picture ${index + 1}` }),
    make('figcaption', {}, make('button', { type: 'button', className: 'use', onclick: () => send({ do: 'use', number: index }, 'chain') }, 'Segment this one'),
      make('a', { href: blobs.get(name).url, download: `drawn-${index + 1}.png` }, 'Save')))));
  $('.history').replaceChildren(...value.history.map((one, index) => make('button',
    { type: 'button', title: one.label, 'aria-label': `Step ${index + 1}: ${one.label}`, 'aria-current': index === value.position ? 'step' : 'false', onclick: () => send({ do: 'go', to: index }) },
    make('img', { src: blobs.get(one.thumb).url, alt: '' }), make('span', {}, one.label))));
  $('.undo').disabled = value.position <= 0;
  $('.redo').disabled = value.position >= value.history.length - 1;
  $('.clear').disabled = !value.objects.length && !value.rows.some((row) => row.areas?.length);
  if (value.error || !value.keep) complain(value.error);
  $('.status').textContent = describe(value);
  if (value.file) save(value.file);
  stage.dataset.seq = value.seq;
  if (sentAt) { stage.dataset.ms = Math.round(performance.now() - sentAt); sentAt = 0; }
}

function describe(value) {
  if (value.note) return value.note;
  if (value.kind === 'drawn') return `${value.drawn.length} picture${value.drawn.length === 1 ? '' : 's'} drawn`;
  if (!value.picture) return '';
  const size = `${value.picture.full[1]} × ${value.picture.full[0]}`;
  const shrunk = value.picture.full[1] !== value.picture.width ? `, shown at ${value.picture.width} × ${value.picture.height}` : '';
  if (value.kind === 'picture') return `${value.picture.name}, ${size}${shrunk}. ${value.rows.length ? 'Click on an object.' : ''}`;
  const row = value.rows[0];
  if (!row?.areas) return '';
  if (!row.areas.length) return 'Nothing found.';
  const share = (100 * row.areas.reduce((sum, one) => sum + one, 0)).toFixed(1);
  return `${row.areas.length} object${row.areas.length === 1 ? '' : 's'}, ${share} % of the picture`;
}

function panels(row, index) {
  const { width, height } = state.picture;
  const picture = blobs.get(state.picture.src).image;
  const ids = row.ids ? numbers(blobs.get(row.ids).image, width, height) : null;
  const mask = layer(width, height, ids && tinted(ids, width, height, state.colors));
  const cut = layer(width, height, null);
  if (ids) {
    const pen = cut.getContext('2d');
    pen.drawImage(layer(width, height, opaque(ids, width, height)), 0, 0);
    pen.globalCompositeOperation = 'source-in';
    pen.drawImage(picture, 0, 0, width, height);
  }
  const frame = (className, ...children) => make('div', { className: `frame ${className}`, style: `aspect-ratio:${width}/${height};width:min(100%,calc(74vh*${width}/${height}))` }, ...children);
  const base = make('img', { src: blobs.get(state.picture.src).url, alt: '', draggable: false });
  const main = frame('main', base, mask, ...marks());
  main.classList.toggle('dim', !!ids);
  main.tabIndex = 0;
  main.setAttribute('role', 'application');
  main.setAttribute('aria-label', `${state.picture.name || 'Picture'}${row.model ? ' by ' + row.model : ''}: arrow keys move the cross, Enter clicks there, Shift and Enter takes away, B sets the corners of a box`);
  listen(main);
  const map = frame('map', ...(row.map ? [make('img', { src: blobs.get(row.map).url, alt: row.what, draggable: false })] : [make('span', { className: 'wait' }, row.model ? '…' : '')]));
  if (row.map && state.kind !== 'words') listen(map);
  const figure = (frame, text) => make('figure', {}, frame, make('figcaption', {}, text));
  const cutFrame = frame('cut', cut);
  if (!ids) cutFrame.append(make('span', { className: 'wait' }, 'the cut-out comes here'));
  const shown = make('section', { className: 'answer', 'aria-label': row.model || 'picture' },
    make('h3', {}, make('span', {}, row.model), make('span', { className: 'time' }, row.seconds ? `${Math.round(1000 * row.seconds)} ms` : '')),
    make('div', { className: 'panels' }, figure(main, 'picture and masks'), figure(map, row.what || 'colour map'), figure(cutFrame, 'cut-out')));
  const said = state.objects.filter((own) => own.text);
  if (said.length) shown.append(make('ul', { className: 'legend' }, ...said.map((own) => make('li', {}, make('i', { style: `background:${rgb(own.color)}` }), own.text))));
  if (ids) {
    const button = (text, format, title) => make('button', { type: 'button', title, 'data-format': format, onclick: () => send({ do: 'save', model: row.model, format }) }, text);
    shown.append(make('div', { className: 'saves', role: 'group', 'aria-label': `Save masks of ${row.model}` }, make('span', {}, 'Save'),
      button('Mask PNG', 'mask', 'One object: 0 and 255; several: their numbers'), button('Cut-out PNG', 'cutout', 'With transparency'),
      button('COCO RLE', 'coco', 'COCO json, masks as RLE'), button('Polygons', 'polygons', 'GeoJSON-like, in pixels')));
  }
  return shown;
}

function layer(width, height, pixels) {
  const canvas = make('canvas', { width, height });
  if (pixels) canvas.getContext('2d').putImageData(pixels, 0, 0);
  return canvas;
}
function numbers(image, width, height) {
  const pen = layer(width, height, null).getContext('2d', { willReadFrequently: true });
  pen.drawImage(image, 0, 0);
  return pen.getImageData(0, 0, width, height).data;  // the number of a pixel is its red
}
function tinted(ids, width, height, colors) {
  const pixels = new ImageData(width, height), out = new Uint32Array(pixels.data.buffer);
  const inside = colors.map(([r, g, b]) => (150 << 24) | (b << 16) | (g << 8) | r), edge = colors.map(([r, g, b]) => (255 << 24) | (b << 16) | (g << 8) | r);
  const reach = Math.max(1, Math.round(Math.max(width, height) / 500));
  for (let y = 0, p = 0; y < height; y++) {
    for (let x = 0; x < width; x++, p++) {
      const id = ids[4 * p];
      if (!id) continue;
      const rim = x < reach || y < reach || x + reach >= width || y + reach >= height ||
        ids[4 * (p - reach)] !== id || ids[4 * (p + reach)] !== id || ids[4 * (p - reach * width)] !== id || ids[4 * (p + reach * width)] !== id;
      out[p] = rim ? edge[id - 1] : inside[id - 1];
    }
  }
  return pixels;
}
function opaque(ids, width, height) {
  const pixels = new ImageData(width, height), out = new Uint32Array(pixels.data.buffer);
  for (let p = 0; p < out.length; p++) if (ids[4 * p]) out[p] = 0xff000000;
  return pixels;
}
function marks() {
  const { width, height } = state.picture, found = [];
  for (const own of state.objects) {
    for (const [x, y, label] of own.points || []) found.push(make('i', { className: label ? 'point' : 'point minus', style: `left:${100 * (x + 0.5) / width}%;top:${100 * (y + 0.5) / height}%;background:${rgb(own.color)}` }));
    if (own.box) { const [x0, y0, x1, y1] = own.box; found.push(make('i', { className: 'box', style: `left:${100 * x0 / width}%;top:${100 * y0 / height}%;width:${100 * (x1 - x0) / width}%;height:${100 * (y1 - y0) / height}%;border-color:${rgb(own.color)}` })); }
  }
  return found;
}

// ---- clicks, boxes, keys
function place(frame, event) {
  const box = frame.getBoundingClientRect(), { width, height } = state.picture;
  return [Math.min(Math.max((event.clientX - box.left) / box.width * width, 0), width), Math.min(Math.max((event.clientY - box.top) / box.height * height, 0), height)];
}
const centre = ([x, y]) => ({ x: Math.min(x, state.picture.width) - 0.5, y: Math.min(y, state.picture.height) - 0.5 });
const click = (at, own) => send({ do: 'click', ...centre(at), tool: own });
const box = (from, to) => send({ do: 'box', x0: from[0], y0: from[1], x1: to[0], y1: to[1] });
function listen(frame) {
  frame.addEventListener('contextmenu', (event) => event.preventDefault());
  frame.addEventListener('pointerdown', (event) => {
    if (event.pointerType === 'mouse' || tool === 'box') { frame.setPointerCapture(event.pointerId); if (event.button === 0 && tool === 'box') event.preventDefault(); }
    drag = { frame, at: place(frame, event), x: event.clientX, y: event.clientY, rubber: null };
  });
  frame.addEventListener('pointermove', (event) => {
    if (!drag || drag.frame !== frame || !(event.pointerType === 'mouse' || tool === 'box')) return;
    if (Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < 7 && !drag.rubber) return;
    drag.rubber ??= frame.appendChild(make('i', { className: 'box rubber' }));
    drawRubber(drag.rubber, drag.at, place(frame, event));
  });
  frame.addEventListener('pointercancel', () => { drag?.rubber?.remove(); drag = null; });
  frame.addEventListener('pointerup', (event) => {
    if (!drag || drag.frame !== frame) return;
    const { at, rubber } = drag;
    drag = null;
    if (rubber) { rubber.remove(); box(at, place(frame, event)); return; }
    if (tool === 'box' && event.button === 0 && !event.shiftKey) { complain('Drag from one corner of the object to the other.'); return; }
    click(at, event.button === 2 || event.shiftKey ? 'remove' : event.ctrlKey || event.metaKey ? 'add' : tool === 'box' ? 'object' : tool);
  });
  frame.addEventListener('keydown', (event) => keys(event, frame));
}
function drawRubber(rubber, from, to) {
  const { width, height } = state.picture;
  Object.assign(rubber.style, { left: `${100 * Math.min(from[0], to[0]) / width}%`, top: `${100 * Math.min(from[1], to[1]) / height}%`, width: `${100 * Math.abs(from[0] - to[0]) / width}%`, height: `${100 * Math.abs(from[1] - to[1]) / height}%` });
}
function keys(event, frame) {
  const { width, height } = state.picture, step = Math.max(width, height) / (event.altKey ? 400 : 40);
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  cursor ??= [width / 2, height / 2];
  if (moves) cursor = [Math.min(Math.max(cursor[0] + moves[0] * step, 0.5), width - 0.5), Math.min(Math.max(cursor[1] + moves[1] * step, 0.5), height - 0.5)];
  else if (event.key === 'Enter' || event.key === ' ') click(cursor, event.shiftKey ? 'remove' : event.ctrlKey ? 'add' : tool === 'box' ? 'object' : tool);
  else if (event.key === 'b' || event.key === 'B') { if (corner) { box(corner, cursor); corner = null; } else { corner = cursor; $('.status').textContent = 'First corner set: move the cross and press B again.'; } }
  else return;
  event.preventDefault();
  event.stopPropagation();
  frame.querySelector('.cross')?.remove();
  frame.append(make('i', { className: 'cross', style: `left:${100 * cursor[0] / width}%;top:${100 * cursor[1] / height}%` }));
  if (moves) $('.status').textContent = `cross at ${Math.round(cursor[0])}, ${Math.round(cursor[1])}`;
}
function choose(name) {
  tool = name;
  stage.dataset.tool = name;
  all('.tools button').forEach((button) => { button.setAttribute('aria-checked', button.dataset.tool === name); });
}
all('.tools button').forEach((button) => { button.onclick = () => choose(button.dataset.tool); });
$('.undo').onclick = () => send({ do: 'go', by: -1 });
$('.redo').onclick = () => send({ do: 'go', by: 1 });
$('.clear').onclick = () => send({ do: 'clear' });
document.addEventListener('keydown', (event) => {
  if (!element.isConnected || event.target.closest?.('input, textarea, select, [contenteditable]')) return;
  const undo = (event.ctrlKey || event.metaKey) && event.key === 'z';
  if (event.altKey || (!undo && (event.ctrlKey || event.metaKey))) return;
  const press = { u: '.undo', r: '.redo', c: '.clear', o: '.open', 1: '[data-tool=object]', 2: '[data-tool=add]', 3: '[data-tool=remove]', 4: '[data-tool=box]' }[undo ? 'u' : event.key.toLowerCase()];
  if (press && !$(press).disabled) { event.preventDefault(); $(press).click(); }
});

// ---- pictures in, files out
function open(file) {
  if (!file) return;
  if (file.size > props.max_bytes) { complain(`${file.name}: expected a picture of at most ${Math.round(props.max_bytes / 2 ** 20)} MB, but got a larger file`); return; }
  const reader = new FileReader();
  reader.onload = () => send({ do: 'open', name: file.name, data: String(reader.result).split(',')[1] || '' }, 'chain');
  reader.onerror = () => complain(`${file.name} cannot be read`);
  reader.readAsDataURL(file);
}
function save(file) {
  const bytes = Uint8Array.from(atob(file.data), (one) => one.charCodeAt(0));
  const link = make('a', { href: URL.createObjectURL(new Blob([bytes], { type: file.mime })), download: file.name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
all('.open').forEach((button) => { button.onclick = () => $('.file').click(); });
$('.file').onchange = (event) => { open(event.target.files[0]); event.target.value = ''; };
stage.addEventListener('dragover', (event) => { event.preventDefault(); stage.classList.add('over'); });
stage.addEventListener('dragleave', () => stage.classList.remove('over'));
stage.addEventListener('drop', (event) => { event.preventDefault(); stage.classList.remove('over'); open(event.dataTransfer.files[0]); });
document.addEventListener('paste', (event) => {
  const file = [...(event.clipboardData?.files || [])].find((one) => one.type.startsWith('image/'));
  if (element.isConnected && file) open(file);
});
const finder = $('.viewfinder'), video = $('video');
const leave = () => { video.srcObject?.getTracks().forEach((track) => track.stop()); video.srcObject = null; finder.classList.remove('on'); };
all('.camera').forEach((button) => {
  button.onclick = async () => {
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
      finder.classList.add('on');
      await video.play();
      $('.shoot').focus();
    } catch { complain('No camera can be used: the browser refused it, or there is none (a page that is not on this machine needs https).'); }
  };
});
$('.leave').onclick = leave;
$('.shoot').onclick = () => {
  const canvas = make('canvas', { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext('2d').drawImage(video, 0, 0);
  leave();
  canvas.toBlob((blob) => open(new File([blob], 'camera.jpg')), 'image/jpeg', 0.92);
};
finder.addEventListener('keydown', (event) => { if (event.key === 'Escape') leave(); });
$('.examples').replaceChildren(...(props.examples || []).map((one, index) => make('button',
  { type: 'button', title: `Example: ${one.title}`, onclick: () => send({ do: 'example', number: index }, 'chain') },
  make('img', { src: one.src, alt: '' }), make('span', {}, one.title))));
stage.dataset.kind = 'empty';
$('.undo').disabled = $('.redo').disabled = $('.clear').disabled = true;
watch('value', () => { show(props.value).catch((error) => complain(`The page could not show that: ${error}`)); });
stage.dataset.ready = 'yes';
