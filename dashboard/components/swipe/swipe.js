// A grid of images, two of which, A and B, are compared large. The server hears what is chosen.

import { arrange, paintArranged } from "../player/player.js";
import { loadImage, nextFrame } from "../shared/shared.js";

const CELL = [56, 96]; // the smallest and largest size of an image in the grid, screen pixels
const LARGEST = 512; // of A and B, unless they are shown in full size
const GAP = 8; // between them side by side, as in swipe.css
const STEP = 2; // percent that a key moves the divider; with Shift five times as many

export default function ({ data, parentElement, setStateValue }) {
  const box = parentElement.querySelector(".swipe");
  const swipe = (box.swipe ??= open(box));
  // Not as a trigger: Streamlit may deliver one again, after newer ones.
  swipe.tell = () => setStateValue("told", { ...swipe.state, count: swipe.count });
  update(swipe, data);
  return () => close(swipe);
}

// ------------------------------------------------------------------------- the component's life

function open(box) {
  const part = (selector) => box.querySelector(selector);
  const swipe = {
    box,
    head: part("thead tr"),
    body: part("tbody"),
    table: part("table"),
    home: part(".home"),
    viewer: part(".viewer"),
    dialog: part("dialog"),
    stage: part(".stage"),
    screen: part(".screen"),
    first: part(".first"),
    second: part(".second"),
    map: part(".map"),
    divider: part(".divider"),
    said: part("output"),
    choices: { a: part("select.a"), b: part("select.b") },
    downloads: { a: part(".download-a"), b: part(".download-b") },
    views: [...box.querySelectorAll(".views button")],
    large: part(".large"),
    turns: part(".turns"),
    factor: part(".factor"),
    signed: part(".signed"),
    interval: part(".interval"),
    zoom: part(".zoom"),
    cells: [], // those with an image, row by row
    focus: 0, // the one that the Tab key leads to
    state: {},
    count: 0, // of what the server was told
    at: 50, // percent of the width left of the divider
    other: false, // whether Flicker shows B
    flickers: false,
  };
  swipe.redraw = nextFrame(() => swipe.closed || draw(swipe));
  swipe.watcher = new ResizeObserver(swipe.redraw);
  swipe.watcher.observe(box);
  swipe.watcher.observe(swipe.stage);
  for (const which of ["a", "b"]) {
    swipe.choices[which].addEventListener("change", (event) => {
      choose(swipe, { [which]: event.target.value });
    });
  }
  part(".swap").addEventListener("click", () => swap(swipe));
  for (const button of swipe.views) {
    button.addEventListener("click", () => choose(swipe, { view: button.textContent }));
  }
  swipe.large.addEventListener("click", () => enlarge(swipe));
  swipe.dialog.addEventListener("close", () => {
    swipe.home.append(swipe.viewer);
    swipe.large.ariaPressed = "false";
    swipe.large.focus();
    swipe.redraw();
  });
  swipe.turns.addEventListener("click", () => flicker(swipe, !swipe.flickers));
  for (const name of ["interval", "zoom", "factor"]) {
    swipe[name].addEventListener("change", () => {
      choose(swipe, { [name]: Number(swipe[name].value) });
    });
  }
  swipe.signed.addEventListener("change", () => choose(swipe, { signed: swipe.signed.checked }));
  const { screen, stage } = swipe;
  screen.addEventListener("pointerdown", (event) => {
    if (swipe.state.view !== "Swipe" || event.button) return;
    event.preventDefault(); // nothing is selected or dragged as an image
    screen.setPointerCapture(event.pointerId);
    swipe.divider.focus();
    follow(swipe, event);
  });
  screen.addEventListener("pointermove", (event) => {
    if (screen.hasPointerCapture(event.pointerId)) follow(swipe, event);
  });
  swipe.divider.addEventListener("keydown", (event) => slide(swipe, event));
  stage.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step && event.target === stage && !event.repeat) take(event, () => turn(swipe, "b", step));
  });
  swipe.table.addEventListener("keydown", (event) => walk(swipe, event));
  box.addEventListener("keydown", (event) => press(swipe, event));
  return swipe;
}

function close(swipe) {
  swipe.closed = true;
  swipe.watcher.disconnect();
  clearInterval(swipe.timer);
}

function update(swipe, data) {
  if (swipe.version !== data.version) {
    swipe.version = data.version;
    makeTable(swipe, data);
  }
  if (data.count >= swipe.count) {
    swipe.count = data.count;
    swipe.state = { ...data.state };
  }
  show(swipe);
}

/** What the visitor has chosen, which the server is told. */
function choose(swipe, changes) {
  if (Object.keys(changes).every((name) => changes[name] === swipe.state[name])) return;
  swipe.state = { ...swipe.state, ...changes };
  swipe.count += 1;
  swipe.tell();
  show(swipe);
}

// ------------------------------------------------------------------------------------ the grid

function makeTable(swipe, data) {
  const { head, body, table } = swipe;
  const focused = swipe.cells[swipe.focus]?.id;
  swipe.cells = [];
  table.ariaLabel = data.label;
  head.replaceChildren(
    textIn("td", data.corner),
    ...data.columns.map((title) => textIn("th", title, "col")),
  );
  body.replaceChildren(
    ...data.rows.map((title, row) => {
      const line = document.createElement("tr");
      line.append(
        textIn("th", title, "row"),
        ...data.cells[row].map((cell, column) => {
          const name = `${title}, ${data.columns[column]}`;
          return makeCell(swipe, { ...cell, row, column, name });
        }),
      );
      return line;
    }),
  );
  swipe.columns = data.columns.length;
  for (const select of Object.values(swipe.choices)) {
    select.replaceChildren(...swipe.cells.map(({ id, name }) => new Option(name, id)));
  }
  swipe.focus = 0;
  lead(swipe, Math.max(0, swipe.cells.findIndex(({ id }) => id === focused)));
}

function textIn(tag, text, scope) {
  const element = document.createElement(tag);
  element.textContent = text;
  if (scope) element.scope = scope;
  return element;
}

function makeCell(swipe, data) {
  const element = document.createElement("td");
  if (!data.address) {
    element.className = "empty";
    element.textContent = data.problem;
    return element;
  }
  const button = document.createElement("button");
  const canvas = document.createElement("canvas");
  const mark = document.createElement("span");
  button.type = "button";
  button.className = "cell";
  button.tabIndex = -1;
  button.append(canvas, mark);
  element.append(button);
  if (data.note) element.append(textIn("p", data.note));
  const id = `${data.row + 1}.${data.column + 1}`;
  const cell = { ...data, id, button, canvas, mark };
  const index = swipe.cells.length;
  button.addEventListener("click", () => {
    lead(swipe, index);
    // The last two that were chosen are A and B.
    if (id !== swipe.state.b) choose(swipe, { a: swipe.state.b, b: id });
  });
  cell.image = loadImage(data.address, swipe.redraw);
  swipe.cells.push(cell);
  return element;
}

/** Let the Tab key lead to a cell. */
function lead(swipe, index) {
  if (!swipe.cells.length) return;
  swipe.cells[swipe.focus].button.tabIndex = -1;
  swipe.focus = index;
  swipe.cells[index].button.tabIndex = 0;
}

/** In the grid the arrow keys move the focus, so that Tab leads past all images. */
function walk(swipe, event) {
  const { cells, focus } = swipe;
  if (!cells[focus] || event.target !== cells[focus].button) return;
  const which = event.key.toLowerCase();
  if (which === "a" || which === "b") {
    take(event, () => choose(swipe, { [which]: cells[focus].id }));
    return;
  }
  const { row, column } = cells[focus];
  const index = {
    ArrowLeft: () => Math.max(0, focus - 1),
    ArrowRight: () => Math.min(cells.length - 1, focus + 1),
    ArrowUp: () => cells.findLastIndex((one) => one.column === column && one.row < row),
    ArrowDown: () => cells.findIndex((one) => one.column === column && one.row > row),
    Home: () => 0,
    End: () => cells.length - 1,
  }[event.key]?.();
  if (index === undefined) return;
  take(event, () => {
    if (index < 0) return;
    lead(swipe, index);
    cells[index].button.focus();
  });
}

// ---------------------------------------------------------------------------------- what is done

/** A key that means something here is nobody else's. */
function take(event, act) {
  event.preventDefault();
  event.stopPropagation();
  act();
}

function press(swipe, event) {
  // A key that is held would let images flash.
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const at = event.target.tagName;
  if (at === "SELECT") return;
  const key = event.key.toLowerCase();
  const which = event.shiftKey ? "a" : "b";
  if (key === " ") {
    // Elsewhere it presses the button.
    if (swipe.state.view !== "Flicker" || ["BUTTON", "INPUT", "SUMMARY", "A"].includes(at)) return;
    take(event, () => byHand(swipe));
  } else if (key === "n") take(event, () => turn(swipe, which, 1));
  else if (key === "p") take(event, () => turn(swipe, which, -1));
  else if (key === "x") take(event, () => swap(swipe));
  else if (key === "f") take(event, () => enlarge(swipe));
  else if (swipe.views[Number(key) - 1]) {
    take(event, () => choose(swipe, { view: swipe.views[Number(key) - 1].textContent }));
  }
}

/** Show the next or an earlier image as A or B; after the last comes the first. */
function turn(swipe, which, step) {
  const count = swipe.cells.length;
  if (!count) return;
  const index = swipe.cells.findIndex(({ id }) => id === swipe.state[which]);
  choose(swipe, { [which]: swipe.cells[(index + step + count) % count].id });
}

function swap(swipe) {
  choose(swipe, { a: swipe.state.b, b: swipe.state.a });
}

function enlarge(swipe) {
  const { dialog, viewer, large } = swipe;
  if (dialog.open) {
    dialog.close();
    return;
  }
  dialog.append(viewer);
  dialog.showModal();
  large.ariaPressed = "true";
  large.focus();
  swipe.redraw();
}

function follow(swipe, event) {
  const { left, width } = swipe.screen.getBoundingClientRect();
  slideTo(swipe, (100 * (event.clientX - left)) / width);
}

function slide(swipe, event) {
  const step = event.shiftKey ? 5 * STEP : STEP;
  const at = {
    ArrowLeft: swipe.at - step,
    ArrowDown: swipe.at - step,
    ArrowRight: swipe.at + step,
    ArrowUp: swipe.at + step,
    Home: 0,
    End: 100,
  }[event.key];
  if (at !== undefined) take(event, () => slideTo(swipe, at));
}

function slideTo(swipe, at) {
  swipe.at = Math.max(0, Math.min(at, 100));
  place(swipe);
}

/** Let A and B alternate, or stop that. */
function flicker(swipe, on) {
  clearInterval(swipe.timer);
  swipe.flickers = on;
  swipe.turns.textContent = on ? "Pause" : "Play";
  swipe.said.ariaLive = on ? "off" : "polite"; // nobody wants to hear each turn
  if (!on) return;
  swipe.timer = setInterval(() => {
    swipe.other = !swipe.other;
    place(swipe);
  }, swipe.state.interval);
}

function byHand(swipe) {
  flicker(swipe, false);
  swipe.other = !swipe.other;
  place(swipe);
}

// ------------------------------------------------------------------------------------- drawing

/** Everything but the pixels, as the state says it. */
function show(swipe) {
  const { state, box, cells, choices, downloads, shown } = swipe;
  for (const which of ["a", "b"]) {
    const cell = cells.find(({ id }) => id === state[which]);
    swipe[which] = cell;
    choices[which].value = state[which];
    downloads[which].hidden = !cell;
    if (cell) [downloads[which].href, downloads[which].download] = [cell.address, cell.file];
  }
  for (const { id, name, mark, button } of cells) {
    const marks = ["a", "b"].filter((which) => state[which] === id).map((m) => m.toUpperCase());
    mark.textContent = marks.join(" ");
    button.ariaPressed = String(marks.length > 0);
    button.ariaLabel = [name, ...marks.map((each) => `image ${each}`)].join(", ");
  }
  for (const button of swipe.views) button.ariaPressed = String(button.textContent === state.view);
  for (const name of ["interval", "zoom", "factor"]) swipe[name].value = state[name];
  swipe.signed.checked = state.signed;
  swipe.viewer.dataset.view = state.view;
  swipe.viewer.hidden = !swipe.a || !swipe.b;
  box.classList.toggle("none", !cells.length);
  const turns = `${state.view} ${state.interval}`;
  if (shown !== turns) {
    swipe.shown = turns;
    const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    flicker(swipe, state.view === "Flicker" && (!still || swipe.flickers));
    swipe.other = false;
  }
  swipe.redraw();
}

function isReady(cell) {
  return cell && cell.image.complete && cell.image.naturalWidth > 0;
}

function draw(swipe) {
  const { cells, table, box, columns } = swipe;
  const beside = table.querySelector("tbody th")?.offsetWidth ?? 0;
  const room = Math.max(CELL[0], (box.clientWidth - beside) / columns - GAP);
  for (const cell of cells) {
    if (!isReady(cell)) continue;
    const { scale } = arrange(1, cell.side, Math.min(room, CELL[1]), [1, Infinity]);
    paintWhole(cell.canvas, cell.image, cell.side, scale);
  }
  if (isReady(swipe.a) && isReady(swipe.b)) drawPair(swipe);
}

function drawPair(swipe) {
  const { a, b, state, stage, dialog, first, second, map } = swipe;
  const side = Math.max(a.side, b.side);
  const beside = state.view === "Side by side";
  const wide = beside ? (stage.clientWidth - GAP) / 2 : stage.clientWidth;
  const high = dialog.open ? stage.clientHeight : LARGEST;
  const fit = arrange(1, side, Math.max(1, Math.min(wide, high)), [1, Infinity]);
  const scale = state.zoom || fit.scale;
  swipe.screen.style.setProperty("--size", `${side * scale}px`);
  // One of another size covers the same square.
  paintWhole(first, a.image, a.side, (scale * side) / a.side);
  paintWhole(second, b.image, b.side, (scale * side) / b.side);
  first.ariaLabel = `A: ${a.name}`;
  second.ariaLabel = `B: ${b.name}`;
  map.hidden = state.view !== "Difference" || a.side !== b.side;
  if (state.view === "Difference") {
    swipe.difference = a.side === b.side ? difference(a, b, state) : null;
    if (swipe.difference) paintWhole(map, swipe.difference.canvas, side, scale);
    map.ariaLabel = `Difference between ${a.name} and ${b.name}`;
  }
  place(swipe);
}

function paintWhole(canvas, image, side, scale) {
  paintArranged(canvas, [[image, 0, 0]], side, { columns: 1, gap: 0, scale });
}

/** Where the divider is and which image is seen: what changes without a new picture. */
function place(swipe) {
  const { a, b, at, state, first, second, divider, other, difference: found } = swipe;
  if (!a || !b) return;
  const { view } = state;
  second.style.clipPath = view === "Swipe" ? `inset(0 0 0 ${at}%)` : "";
  first.hidden = view === "Difference" || (view === "Flicker" && other);
  second.hidden = view === "Difference" || (view === "Flicker" && !other);
  divider.hidden = view !== "Swipe";
  divider.style.left = `${at}%`;
  divider.ariaValueNow = String(Math.round(at));
  divider.ariaValueText = `A on ${Math.round(at)} % of the width`;
  const sides = a.side === b.side ? "" : ` Their sizes are ${a.side} and ${b.side} pixels.`;
  let words = `A: ${a.name}. B: ${b.name}.${sides}`;
  if (view === "Flicker") words = other ? `B: ${b.name}` : `A: ${a.name}`;
  if (view === "Difference") {
    words = found
      ? `Mean absolute difference ${found.mean.toFixed(2)} of 255, shown × ${state.factor}. ` +
        (state.signed ? "Grey: equal. Brighter: A is greater." : "Black: equal.")
      : `Images of different sizes (${a.side} and ${b.side} pixels) have no difference.`;
  }
  swipe.said.textContent = words;
}

/** The map of |A - B| times a factor, or with its sign around grey, and the mean of |A - B|. */
function difference(a, b, { factor, signed }) {
  const [one, two] = [a, b].map(pixels);
  const canvas = new OffscreenCanvas(a.side, a.side);
  const context = canvas.getContext("2d");
  const whole = context.createImageData(a.side, a.side);
  let sum = 0;
  for (let k = 0; k < one.length; k += 1) {
    if (k % 4 === 3) {
      whole.data[k] = 255;
      continue;
    }
    const apart = one[k] - two[k];
    sum += Math.abs(apart);
    whole.data[k] = signed ? 128 + (apart * factor) / 2 : Math.abs(apart) * factor;
  }
  context.putImageData(whole, 0, 0);
  return { canvas, mean: sum / (one.length * 0.75) };
}

function pixels({ image, side }) {
  const canvas = new OffscreenCanvas(side, side);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, side, side).data;
}
