// Frames of images under one slider. All frames of an image in one row lie in one sheet; moving the
// slider or choosing another image only draws.

import { openPlayer, paintTiles, play, sayWhere, setFrames } from "../player/player.js";
import { formatImages, loadImage } from "../shared/shared.js";
import { followTimestep, moveTimestep } from "../shared/timestep.js";

const ALONE = [96, 256]; // the smallest and largest size of an image on the screen
const BESIDE = [96, 192]; // in several rows
const TOGETHER = [56, 112]; // among others
const GAP = 14; // screen pixels between rows, as in flipbook.css

export default function ({ data, parentElement, setTriggerValue }) {
  const box = parentElement.querySelector(".flipbook");
  const book = (box.book ??= open(box));
  book.tell = (image) => setTriggerValue("image", image);
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
    image: 0, // the number of the image shown, from 1; 0: all images that were sent
    rows: [],
    sheets: [], // of each image, one for each row
  };
  book.isReady = () => book.drawn === book.index;
  openPlayer(book, box, draw);
  book.which.addEventListener("change", () => {
    book.image = Number(book.which.value);
    book.redraw();
    if (book.image) book.tell(book.image);
  });
  book.watcher = new ResizeObserver(book.redraw);
  book.watcher.observe(box);
  return book;
}

function close(book) {
  book.closed = true;
  book.watcher.disconnect();
}

function update(book, data) {
  const before = book.data;
  const isNew = before?.film !== data.film;
  book.data = data;
  if (isNew || before.first !== data.first) begin(book, data);
  if (isNew) book.index = book.last;
  if (isNew && data.timesteps.length) follow(book, data.timesteps);
  if (isNew || before.image !== data.image) {
    book.image = data.image;
    book.which.value = book.image;
  }
  book.redraw();
  const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (isNew && data.plays && !book.playing && !still) play(book);
}

/** Show the frame nearest to the page's timestep, and move that when another frame is chosen. */
function follow(book, timesteps) {
  book.moved = () => moveTimestep(timesteps[book.index]);
  followTimestep(book.box, (t) => {
    const away = timesteps.map((each) => Math.abs(each - t));
    const nearest = away.indexOf(Math.min(...away));
    if (nearest === book.index) return;
    book.index = nearest;
    book.redraw();
  });
}

function begin(book, data) {
  book.sheets = data.sheets.map((sheets) =>
    sheets.map((address) => loadImage(address, book.redraw)),
  );
  book.rows = data.rows.map((name) => {
    const element = document.createElement("figure");
    element.innerHTML = '<figcaption></figcaption><canvas role="img"></canvas>';
    const [caption, canvas] = element.children;
    caption.textContent = name;
    return { name, element, canvas };
  });
  book.list.replaceChildren(...book.rows.map((row) => row.element));
  book.which.replaceChildren(
    new Option("all", 0),
    ...data.names.map((name, k) => new Option(name, data.first + k + 1)),
  );
  book.which.value = book.image;
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
  setFrames(book, data.captions.length);
}

// ------------------------------------------------------------------------------------ drawing

function draw(book) {
  const { data, index, image } = book;
  const words = data.captions[index];
  sayWhere(book, words);
  const chosen = image ? [image - 1 - data.first] : data.names.map((_, k) => k);
  const x = (index % data.columns) * data.side;
  const y = Math.floor(index / data.columns) * data.side;
  const who = image ? `image ${data.names[chosen[0]]}` : formatImages(data.names.length);
  book.list.classList.toggle("alone", Boolean(image));
  const beside = image ? book.rows.length : 1;
  const oneSize = beside > 1 ? BESIDE : ALONE;
  const sizes = image ? oneSize : TOGETHER;
  const room = Math.max(ALONE[0], (book.list.clientWidth - GAP * (beside - 1)) / beside);
  let ready = true;
  book.rows.forEach(({ name, canvas }, row) => {
    const sheets = chosen.map((k) => book.sheets[k][row]);
    canvas.setAttribute("aria-label", `${name}, ${who}, ${words}`);
    if (!sheets.every((sheet) => sheet.complete && sheet.naturalWidth)) {
      ready = false;
      return;
    }
    const tiles = sheets.map((sheet) => [sheet, x, y]);
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

const [WIDE, HIGH] = [64, 40]; // of the SVG's viewBox

function beginHistogram(book, { title, edge, density }) {
  const part = (selector) => book.histogram.querySelector(selector);
  part("figcaption").textContent = title;
  const [low, , high] = book.histogram.querySelectorAll(".axis span");
  low.textContent = `−${edge}`;
  high.textContent = edge;
  const most = density.flat(2).reduce((top, value) => Math.max(top, value), 0);
  book.top = Math.min(1.2, Math.max(0.5, 1.1 * most));
  const points = Array.from({ length: 129 }, (_, k) => {
    const z = edge * (k / 64 - 1);
    const bell = Math.exp(-z * z / 2) / Math.sqrt(2 * Math.PI);
    return `${(k / 128) * WIDE},${HIGH * (1 - bell / book.top)}`;
  });
  part(".curve").setAttribute("d", `M${points.join("L")}`);
}

/** The histogram of the chosen images together. */
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
