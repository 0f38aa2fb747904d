// Frames of pictures under one slider. Every picture's frames of a row lie in one sheet; moving the
// slider or choosing another picture only draws.

const ALONE = [96, 256]; // a picture's side on the screen, where there is room
const BESIDE = [96, 192]; // where it is seen in several rows
const TOGETHER = [56, 112];
const GAP = 14; // screen pixels between them, as the style says

export default function ({ data, parentElement, setTriggerValue }) {
  const box = parentElement.querySelector(".flipbook");
  const book = (box.book ??= open(box));
  book.tell = (picture) => setTriggerValue("picture", picture);
  update(book, data);
  return () => close(book);
}

// ------------------------------------------------------------------------- the component's life

function open(box) {
  const part = (selector) => box.querySelector(selector);
  const book = {
    box,
    list: part(".rows"),
    beside: part(".beside"),
    facts: part("dl"),
    histogram: part(".histogram"),
    which: part(".which"),
    choice: part(".choice"),
    data: null,
    index: 0,
    picture: 0, // its number, from 1; 0: all that were sent, together
    rows: [],
    sheets: [], // of each picture, an image for each row
  };
  book.last = () => book.data.captions.length - 1;
  book.go = (index) => {
    book.index = Math.max(0, Math.min(index, book.last()));
    later(book);
  };
  book.isReady = () => book.drawn === book.index;
  book.starts = () => {};
  book.stands = () => {};
  openPlayer(book, box);
  book.which.addEventListener("change", () => {
    book.picture = Number(book.which.value);
    later(book);
    if (book.picture) book.tell(book.picture);
  });
  book.watcher = new ResizeObserver(() => later(book));
  book.watcher.observe(box);
  return book;
}

function close(book) {
  book.playing = false;
  book.closed = true;
  book.watcher.disconnect();
}

function update(book, data) {
  const before = book.data;
  book.data = data;
  if (before?.film !== data.film || before.first !== data.first) {
    begin(book, data);
    if (before?.film !== data.film) book.index = book.last();
  }
  if (before?.film !== data.film || before.picture !== data.picture) {
    book.picture = data.picture;
    book.which.value = book.picture;
  }
  later(book);
}

function begin(book, data) {
  book.sheets = data.sheets.map((sheets) => sheets.map((address) => load(book, address)));
  book.rows = data.rows.map((name) => {
    const element = document.createElement("figure");
    const caption = document.createElement("figcaption");
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    caption.textContent = name;
    element.append(caption, canvas);
    return { name, element, canvas };
  });
  book.list.replaceChildren(...book.rows.map((row) => row.element));
  book.which.replaceChildren(
    new Option("all together", 0),
    ...data.names.map((name, k) => new Option(name, data.first + k + 1)),
  );
  book.which.value = book.picture;
  book.choice.hidden = data.names.length < 2;
  book.facts.replaceChildren(
    ...Object.keys(data.numbers).flatMap((name) => {
      const term = document.createElement("dt");
      term.textContent = name;
      return [term, document.createElement("dd")];
    }),
  );
  book.beside.hidden = !data.histogram && !Object.keys(data.numbers).length;
  book.histogram.hidden = !data.histogram;
  if (data.histogram) beginHistogram(book, data.histogram);
  book.slider.max = book.last();
  book.controls.classList.toggle("still", book.last() < 1);
}

function load(book, address) {
  const image = new Image();
  image.onload = () => later(book);
  image.src = address;
  return image;
}

// ------------------------------------------------------------------------------------ drawing

/** Draw with the next frame of the screen, however often it is asked for before. */
function later(book) {
  book.frame ??= requestAnimationFrame(() => {
    book.frame = undefined;
    if (!book.closed) draw(book);
  });
}

function draw(book) {
  const { data, index, picture } = book;
  const words = data.captions[index];
  sayWhere(book, words);
  const chosen = picture ? [picture - 1 - data.first] : data.names.map((_, k) => k);
  const x = (index % data.columns) * data.side;
  const y = Math.floor(index / data.columns) * data.side;
  const who = picture ? `picture ${data.names[chosen[0]]}` : `${data.names.length} pictures`;
  book.list.classList.toggle("alone", Boolean(picture));
  const beside = picture ? book.rows.length : 1;
  const sizes = !picture ? TOGETHER : beside > 1 ? BESIDE : ALONE;
  const room = Math.max(ALONE[0], (book.list.clientWidth - GAP * (beside - 1)) / beside);
  let ready = true;
  book.rows.forEach(({ name, canvas }, row) => {
    const images = chosen.map((k) => book.sheets[k][row]);
    canvas.setAttribute("aria-label", `${name}, ${who}, ${words}`);
    if (!images.every((image) => image.complete && image.naturalWidth)) {
      ready = false;
      return;
    }
    const tiles = images.map((image) => [image, x, y]);
    paintTiles(canvas, tiles, data.side, room, sizes);
  });
  if (ready) book.drawn = index;
  const values = book.facts.querySelectorAll("dd");
  Object.values(data.numbers).forEach((frames, k) => {
    const known = chosen.map((one) => frames[index][one]).filter((value) => value !== null);
    const mean = known.reduce((sum, value) => sum + value, 0) / known.length;
    values[k].textContent = known.length ? mean.toFixed(3) : "–";
  });
  if (data.histogram) drawHistogram(book, data.histogram, chosen, words);
}

// ---------------------------------------------------------------------------------- histogram

const [WIDE, HIGH] = [64, 40]; // the drawing's units

function beginHistogram(book, { title, edge, density }) {
  const part = (selector) => book.histogram.querySelector(selector);
  part("figcaption").textContent = title;
  const [low, , high] = book.histogram.querySelectorAll(".axis span");
  low.textContent = `−${edge}`;
  high.textContent = edge;
  const most = density.flat(2).reduce((most, value) => Math.max(most, value), 0);
  book.top = Math.min(1.2, Math.max(0.5, 1.1 * most));
  const points = Array.from({ length: 129 }, (_, k) => {
    const z = edge * (k / 64 - 1);
    const bell = Math.exp(-z * z / 2) / Math.sqrt(2 * Math.PI);
    return `${(k / 128) * WIDE},${HIGH * (1 - bell / book.top)}`;
  });
  part(".curve").setAttribute("d", `M${points.join("L")}`);
}

/** Of the chosen pictures together. */
function drawHistogram(book, { title, density }, chosen, words) {
  const ones = chosen.map((one) => density[book.index][one]);
  const bars = ones[0].map((_, k) => ones.reduce((sum, one) => sum + one[k], 0) / ones.length);
  const width = WIDE / bars.length;
  const steps = bars.map((value) => {
    const y = Math.max(0, HIGH * (1 - value / book.top));
    return `V${y.toFixed(2)}h${width}`;
  });
  book.histogram.querySelector(".bars").setAttribute("d", `M0,${HIGH}${steps.join("")}V${HIGH}Z`);
  book.histogram.querySelector("svg").setAttribute("aria-label", `${title}, ${words}`);
}
