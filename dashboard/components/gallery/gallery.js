// A grid of images. One of them opens large, over the whole page, and the arrow keys go on to the
// next.

import { arrange, paintArranged } from "../player/player.js";
import { loadImage, nextFrame } from "../shared/shared.js";

const SMALLEST = 64; // screen pixels of an image where a row chooses its columns
const SWIPE = 40; // screen pixels over which a finger turns to the next image

export default function ({ data, parentElement, setTriggerValue }) {
  const box = parentElement.querySelector(".gallery");
  const gallery = (box.gallery ??= open(box));
  gallery.ask = (index) => setTriggerValue("original", index);
  update(gallery, data);
  return () => close(gallery);
}

// ------------------------------------------------------------------------- the component's life

function open(box) {
  const part = (selector) => box.querySelector(selector);
  const gallery = {
    box,
    list: part(".rows"),
    dialog: part("dialog"),
    stage: part(".stage"),
    view: part(".view"),
    canvas: part(".view canvas"),
    where: part("output"),
    said: part(".said"),
    download: part(".download"),
    screen: part(".screen"),
    rows: [],
    tiles: [], // of all rows
    index: 0, // the tile that is open, or that the Tab key leads to
  };
  const { dialog, stage, view, screen } = gallery;
  gallery.redraw = nextFrame(() => gallery.closed || draw(gallery));
  gallery.watcher = new ResizeObserver(gallery.redraw);
  gallery.watcher.observe(box);
  gallery.watcher.observe(view);
  gallery.list.addEventListener("keydown", (event) => walk(gallery, event));
  dialog.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    turn(gallery, gallery.index + step);
  });
  dialog.addEventListener("close", () => {
    if (screen.ariaPressed === "true") document.exitFullscreen();
    gallery.tiles[gallery.index]?.button.focus();
  });
  part(".close").addEventListener("click", () => dialog.close());
  part(".previous").addEventListener("click", () => turn(gallery, gallery.index - 1));
  part(".next").addEventListener("click", () => turn(gallery, gallery.index + 1));
  view.addEventListener("click", (event) => event.target === view && dialog.close());
  let start = 0;
  view.addEventListener("pointerdown", (event) => { start = event.clientX; });
  view.addEventListener("pointerup", (event) => {
    const way = event.clientX - start;
    if (event.pointerType !== "touch" || Math.abs(way) < SWIPE) return;
    turn(gallery, gallery.index - Math.sign(way));
  });
  gallery.original = part(".original");
  gallery.original.addEventListener("click", () => {
    dialog.close();
    gallery.ask(gallery.index);
  });
  const copy = part(".copy");
  copy.hidden = !navigator.clipboard?.write; // the browser allows it on HTTPS and localhost only
  copy.addEventListener("click", () => copyImage(gallery));
  screen.hidden = !document.fullscreenEnabled; // not on an iPhone
  screen.addEventListener("click", () => {
    if (screen.ariaPressed === "true") document.exitFullscreen();
    else stage.requestFullscreen();
  });
  stage.addEventListener("fullscreenchange", () => {
    screen.ariaPressed = String(stage.matches(":fullscreen"));
  });
  return gallery;
}

function close(gallery) {
  gallery.closed = true;
  gallery.watcher.disconnect();
}

function update(gallery, data) {
  if (gallery.version === data.version) return;
  gallery.version = data.version;
  gallery.dialog.close();
  gallery.original.hidden = !data.original;
  gallery.index = 0;
  gallery.tiles = [];
  gallery.rows = data.rows.map((row) => makeRow(gallery, row));
  gallery.list.replaceChildren(...gallery.rows.map((row) => row.element));
  gallery.list.style.gridTemplateColumns =
    data.beside ? `repeat(auto-fill, minmax(${data.beside}px, 1fr))` : "";
  gallery.list.role = "group";
  gallery.list.ariaLabel = data.label;
  lead(gallery, 0);
  gallery.redraw();
}

function makeRow(gallery, data) {
  const element = document.createElement("div");
  element.className = "row";
  for (const [name, text] of [["h4", data.title], ["p", data.note]]) {
    if (!text) continue;
    const line = document.createElement(name);
    line.textContent = text;
    element.append(line);
  }
  const list = document.createElement("div");
  list.className = "tiles";
  element.append(list);
  const row = { ...data, element, list };
  row.tiles = data.tiles.map((tile) => makeTile(gallery, row, tile));
  list.append(...row.tiles.map((tile) => tile.element));
  return row;
}

function makeTile(gallery, row, data) {
  const element = document.createElement("figure");
  const button = document.createElement("button");
  const canvas = document.createElement("canvas");
  const index = gallery.tiles.length;
  button.type = "button";
  button.className = "tile";
  button.ariaLabel = `Enlarge ${data.name}`;
  button.tabIndex = -1;
  button.append(canvas);
  button.addEventListener("click", () => {
    gallery.dialog.showModal();
    turn(gallery, index);
  });
  element.append(button);
  if (row.named) {
    const caption = document.createElement("figcaption");
    caption.textContent = data.name;
    element.append(caption);
  }
  const tile = { ...data, row, element, button, canvas };
  tile.image = loadImage(data.address, gallery.redraw);
  gallery.tiles.push(tile);
  return tile;
}

// -------------------------------------------------------------------------------------- moving

/** In the grid the arrow keys, Home and End move the focus, so that Tab leads past all images. */
function walk(gallery, event) {
  const { across } = gallery.tiles[gallery.index].row;
  const last = gallery.tiles.length - 1;
  const index = {
    ArrowLeft: gallery.index - 1,
    ArrowRight: gallery.index + 1,
    ArrowUp: gallery.index - across,
    ArrowDown: gallery.index + across,
    Home: 0,
    End: last,
  }[event.key];
  if (index === undefined) return;
  event.preventDefault();
  lead(gallery, Math.max(0, Math.min(index, last)));
  gallery.tiles[gallery.index].button.focus();
}

/** Let the Tab key lead to a tile. */
function lead(gallery, index) {
  if (!gallery.tiles.length) return;
  gallery.tiles[gallery.index].button.tabIndex = -1;
  gallery.index = index;
  gallery.tiles[index].button.tabIndex = 0;
}

/** Show another image large; after the last comes the first. */
function turn(gallery, index) {
  const count = gallery.tiles.length;
  lead(gallery, (index + count) % count);
  const { name, row, file, address } = gallery.tiles[gallery.index];
  const where = count > 1 ? ` (${gallery.index + 1} of ${count})` : "";
  gallery.where.textContent = `${row.title ? `${row.title}: ` : ""}${name}${where}`;
  gallery.canvas.ariaLabel = name;
  gallery.download.href = address;
  gallery.download.download = file;
  gallery.said.textContent = "";
  gallery.redraw();
}

async function copyImage(gallery) {
  const { address } = gallery.tiles[gallery.index];
  const png = fetch(address).then((answer) => answer.blob());
  try {
    await navigator.clipboard.write([new ClipboardItem({ "image/png": png })]);
    gallery.said.textContent = "Copied.";
  } catch (error) {
    gallery.said.textContent = `The browser did not copy it: ${error.message}`;
  }
}

// ------------------------------------------------------------------------------------- drawing

function draw(gallery) {
  const room = gallery.box.clientWidth;
  for (const row of gallery.rows) {
    const sizes = [row.columns ? 1 : SMALLEST, row.size];
    const { columns, gap, scale } = arrange(row.columns || row.tiles.length, row.side, room, sizes);
    row.across = columns;
    row.list.style.gridTemplateColumns = `repeat(${columns}, ${row.side * scale}px)`;
    row.list.style.gap = `${gap * scale}px`;
    for (const tile of row.tiles) paintOne(tile.canvas, tile, scale);
  }
  const { dialog, view, canvas, tiles, index } = gallery;
  if (!dialog.open) return;
  const { side } = tiles[index].row;
  const large = arrange(1, side, Math.min(view.clientWidth, view.clientHeight), [1, Infinity]);
  paintOne(canvas, tiles[index], large.scale);
}

function paintOne(canvas, { image, row }, scale) {
  if (!image.complete || !image.naturalWidth) return;
  paintArranged(canvas, [[image, 0, 0]], row.side, { columns: 1, gap: 0, scale });
}
