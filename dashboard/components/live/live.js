// A run's image that follows the hand: this file takes the settings and shows what the worker of the
// engine samples. The server hears of the settings when the hand rests.

import { openEngine } from "../engine/client.js";
import { save } from "../shared/files.js";
import { changePainting, drawSpot, openPainting, setPainting } from "../shared/painting.js";
import { formatNumber, nextFrame } from "../shared/shared.js";

const REST_MS = 400;
const PAUSE_MS = 200; // from the last movement until all steps are taken
const QUICK_MS = 200; // that the steps take while the hand moves
const SHOWN = 8; // canvas pixels of a pixel of the noise
const SAVED = 512; // pixels of the downloaded image, so that its own stay crisp
const MOST_SEED = Number.MAX_SAFE_INTEGER;
const KINDS = { processor: "JavaScript", graphics: "WebGL2" };

export default function ({ data, parentElement, setStateValue }) {
  const box = parentElement.querySelector(".live");
  const live = (box.live ??= open(box));
  live.tell = () => setStateValue("settings", { ...live.settings, count: live.count });
  update(live, data);
  return () => close(live);
}

// ------------------------------------------------------------------------- the component's life

function open(box) {
  const part = (selector) => box.querySelector(selector);
  const live = {
    box,
    part,
    settings: {},
    count: 0, // how often the server has been told
    moved: [0, 0], // pixels to the right and down
    mode: "move",
    turn: 0, // of the newest request
    pace: 50, // milliseconds a step
    moving: false, // whether the hand is
    small: document.createElement("canvas"), // the noise, a pixel a pixel
    inputs: [...box.querySelectorAll("[name]")],
  };
  live.ask = nextFrame(() => live.closed || ask(live));
  // Before those of the painting, which get what these leave.
  listenToMoves(live, part(".noise canvas"));
  live.painting = openPainting({
    canvas: part(".noise canvas"), brush: part(".brush"), undo: part(".undo"), send: live.ask,
  }, () => {
    drawNoise(live);
    if (live.painting.at) move(live);
  });
  for (const input of live.inputs) {
    input.addEventListener("input", () => {
      set(live, input.name, valueOf(input));
      if (input.type === "range") move(live);
    });
  }
  for (const button of box.querySelectorAll(".tools button[value]")) {
    button.addEventListener("click", () => choose(live, button.value));
  }
  part(".new").addEventListener("click", () => {
    set(live, "seed", live.settings.seed >= MOST_SEED ? 0 : live.settings.seed + 1);
    display(live);
  });
  part(".reset").addEventListener("click", () => {
    live.moved = [0, 0];
    changePainting(live.painting, () => 0);
  });
  part(".stop").addEventListener("click", () => {
    live.turn += 1;
    live.worker?.postMessage({ ask: { stop: true, turn: live.turn } }, []);
    run(live, false);
    say(live, `Stopped after ${live.index} of ${live.asked.steps} steps.`);
  });
  part(".download").addEventListener("click", () => saveImage(live));
  choose(live, "move");
  return live;
}

function close(live) {
  live.closed = true;
  live.worker?.terminate();
  clearTimeout(live.rest);
  clearTimeout(live.pause);
}

function update(live, data) {
  if (data.count >= live.count && live.rest === undefined) { // else the hand is ahead of the server
    live.count = data.count;
    live.settings = { ...data.settings };
  }
  const old = live.data;
  live.data = data;
  if (old?.size !== data.size) {
    setPainting(live.painting, new Uint8Array(data.size ** 2), data.size, SHOWN);
    for (const canvas of [live.small, live.part(".image canvas")]) {
      canvas.width = canvas.height = data.size;
    }
    live.moved = [0, 0];
  }
  fill(live, data);
  display(live);
  if (old?.address !== data.address) load(live);
  live.ask();
}

/** The options that the model has. */
function fill(live, data) {
  const options = {
    label: Object.keys(data.classes).map((title) => [title, title]),
    sampler: Object.entries(data.samplers),
    steps: data.steps.map((steps) => [steps, formatNumber(steps)]),
    engine: Object.entries(data.engines),
  };
  const text = JSON.stringify(options);
  if (live.options === text) return;
  live.options = text;
  for (const [name, entries] of Object.entries(options)) {
    const select = live.part(`[name=${name}]`);
    select.replaceChildren(...entries.map(([value, title]) => new Option(title, value)));
  }
  Object.assign(live.part("[name=guidance]"), data.guidance);
}

/** A worker of its own for each model: what the last one was computing is not waited for. */
function load(live) {
  live.worker?.terminate();
  live.loaded = null;
  live.asked = null;
  say(live, "Loading the run …");
  run(live, true);
  const { worker: script, address } = live.data;
  const { engine } = live.settings;
  live.worker = openEngine({ script, address, engine }, (message) => hear(live, message));
}

// ------------------------------------------------------------------------------------- settings

function valueOf(input) {
  if (input.name === "steps" || input.type === "range") return Number(input.value);
  if (input.type !== "number") return input.value;
  const whole = Math.floor(input.valueAsNumber);
  return whole >= 0 && whole <= MOST_SEED ? whole : undefined; // while it is being typed
}

function set(live, name, value) {
  if (value === undefined || live.settings[name] === value) return;
  live.settings = { ...live.settings, [name]: value };
  display(live, name);
  if (name === "engine") load(live);
  live.ask();
  clearTimeout(live.rest);
  live.rest = setTimeout(() => {
    live.rest = undefined;
    live.count += 1;
    live.tell();
  }, REST_MS);
}

/** The hand moves: few steps until it pauses, so that the image follows. */
function move(live) {
  live.moving = true;
  live.ask();
  clearTimeout(live.pause);
  live.pause = setTimeout(() => {
    live.moving = false;
    live.ask();
  }, PAUSE_MS);
}

/** Show the settings; the input called `but` has its own already. */
function display(live, but = "") {
  const { part, inputs, settings, data } = live;
  for (const input of inputs) {
    if (input.name !== but) input.value = settings[input.name];
    const output = input.parentElement.querySelector("output");
    if (output) output.textContent = input.name === "angle" ? `${settings.angle}°` : settings.guidance;
  }
  part(".with-classes").hidden = !Object.keys(data.classes).length;
  part(".with-guidance").hidden = !data.guides || isAny(live);
}

/** Whether no class is asked for, so that nothing can be guided to it. */
function isAny({ data, settings }) {
  return (data.classes[settings.label] ?? null) === null;
}

// ------------------------------------------------------------------------------------ the noise

function choose(live, mode) {
  live.mode = mode;
  if (mode !== "move") live.painting.value = Number(mode === "paint");
  for (const button of live.box.querySelectorAll(".tools button[value]")) {
    button.ariaPressed = String(button.value === mode);
  }
  live.part(".noise canvas").dataset.mode = mode;
  live.part(".noise canvas").ariaLabel = mode === "move"
    ? "The noise. Drag it, or press the arrow keys, to move it."
    : `The noise. ${mode === "paint" ? "Paint" : "Erase"} with the pointer, or move the brush with the `
      + "arrow keys and press Space.";
}

/** Dragging and the arrow keys move the noise where that is chosen. */
function listenToMoves(live, canvas) {
  let from = null;
  const own = (event) => {
    if (live.mode === "move") event.stopImmediatePropagation();
    return live.mode === "move";
  };
  const moveTo = (x, y) => {
    if (live.moved[0] === x && live.moved[1] === y) return;
    live.moved = [x, y];
    live.box.dataset.moved = live.moved.join(" ");
    move(live);
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (!own(event) || event.button) return;
    canvas.setPointerCapture(event.pointerId);
    from = { x: event.clientX, y: event.clientY, moved: live.moved };
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!own(event) || !from) return;
    const pixel = canvas.getBoundingClientRect().width / live.data.size;
    const ways = [event.clientX - from.x, event.clientY - from.y].map((way) => Math.round(way / pixel));
    moveTo(from.moved[0] + ways[0], from.moved[1] + ways[1]);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, (event) => {
      if (own(event)) from = null;
    });
  }
  canvas.addEventListener("keydown", (event) => {
    if (live.mode !== "move") return;
    const way = {
      ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
    }[event.key];
    event.stopImmediatePropagation();
    if (!way) return;
    event.preventDefault();
    moveTo(live.moved[0] + way[0], live.moved[1] + way[1]);
  });
}

/** The noise, with a line around what is painted, and the brush. */
function drawNoise(live) {
  const { painting, small } = live;
  const { canvas, values, size } = painting;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  context.beginPath();
  const painted = (column, row) => (
    column >= 0 && row >= 0 && column < size && row < size && values[row * size + column] === 1
  );
  for (let row = 0; row <= size; row += 1) {
    for (let column = 0; column <= size; column += 1) {
      const here = painted(column, row);
      if (here !== painted(column - 1, row)) {
        context.moveTo(column * SHOWN, row * SHOWN);
        context.lineTo(column * SHOWN, (row + 1) * SHOWN);
      }
      if (here !== painted(column, row - 1)) {
        context.moveTo(column * SHOWN, row * SHOWN);
        context.lineTo((column + 1) * SHOWN, row * SHOWN);
      }
    }
  }
  for (const [style, width] of [["black", SHOWN / 2], ["white", SHOWN / 4]]) {
    context.strokeStyle = style;
    context.lineWidth = width;
    context.stroke();
  }
  drawSpot(painting, context, SHOWN);
}

// ------------------------------------------------------------------------------------- sampling

/** Ask for the image of the present settings, unless it is the one that was asked for last. */
function ask(live) {
  const { settings, data, moved, painting, worker, moving, pace } = live;
  if (!worker) return;
  const quick = Math.max(1, Math.min(settings.steps, Math.floor(QUICK_MS / pace)));
  const label = data.classes[settings.label] ?? null;
  const asked = {
    seed: settings.seed,
    other: settings.other,
    angle: (settings.angle * Math.PI) / 180,
    moved,
    mask: painting.values.slice(),
    label,
    guidance: data.guides && label !== null ? settings.guidance : 1,
    sampler: settings.sampler,
    steps: moving ? quick : settings.steps,
  };
  const text = JSON.stringify({ ...asked, mask: asked.mask.join("") });
  if (live.asked?.text === text) return;
  live.turn += 1;
  live.asked = { text, turn: live.turn, steps: asked.steps };
  worker.postMessage({ ask: { ...asked, turn: live.turn, whole: moving } }, []);
  if (live.loaded) run(live, true);
}

/** What the worker says; an earlier request is shown too, while the hand moves on. */
function hear(live, { turn, loaded, step, done, failed }) {
  if (loaded) { // and again after the first image, when the graphics processor has been tried
    if (!live.loaded) say(live, "Sampling …");
    live.loaded = loaded;
    live.box.dataset.kind = loaded.kind;
  }
  if (failed && (turn === undefined || turn === live.turn)) {
    run(live, false);
    say(live, failed);
  }
  if (turn === undefined || live.asked === null || turn < live.shown) return;
  if (step) show(live, turn, step);
  if (done && turn === live.turn) tellDone(live, done);
}

function show(live, turn, { index, noisy, image }) {
  const { data: { size }, part, asked } = live;
  if (live.shown !== turn) {
    live.shown = turn;
    live.strip = [];
  }
  live.index = index;
  if (!image) {
    live.small.getContext("2d").putImageData(new ImageData(noisy, size, size), 0, 0);
    drawNoise(live);
    return;
  }
  const pixels = new ImageData(image, size, size);
  const canvas = part(".image canvas");
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  live.strip.push(pixels);
  drawStrip(live);
  if (turn !== asked.turn) return;
  part("progress").value = index / asked.steps;
  const words = asked.steps === 1 ? "after one step" : `after ${index} of ${asked.steps} steps`;
  part(".what").textContent = `The image, ${words}`;
  canvas.ariaLabel = `The image of seed ${live.settings.seed}, ${words}`;
}

function drawStrip({ part, strip, data: { size } }) {
  const line = part(".strip");
  while (line.children.length > strip.length) line.lastChild.remove();
  strip.forEach((pixels, k) => {
    if (!line.children[k]) {
      const canvas = document.createElement("canvas");
      canvas.width = canvas.height = size;
      line.append(canvas);
    }
    if (k === strip.length - 1) line.children[k].getContext("2d").putImageData(pixels, 0, 0);
  });
}

function tellDone(live, { ms, kind, why }) {
  run(live, false);
  live.box.dataset.kind = kind;
  live.pace = ms / live.asked.steps;
  const steps = live.asked.steps === 1 ? "1 step" : `${live.asked.steps} steps`;
  const time = ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
  say(live, `${steps} in ${time} with ${KINDS[kind]}.${why ? ` ${why}` : ""}`);
}

function run(live, running) {
  live.box.dataset.state = running ? "running" : "done";
  live.part(".stop").disabled = !running || !live.asked;
  live.part("progress").style.visibility = running ? "visible" : "hidden";
}

function say(live, sentence) {
  live.part(".said").textContent = sentence;
}

function saveImage(live) {
  const image = live.part(".image canvas");
  const times = Math.max(1, Math.floor(SAVED / image.width));
  const large = document.createElement("canvas");
  large.width = large.height = image.width * times;
  const context = large.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(image, 0, 0, large.width, large.height);
  large.toBlob((blob) => save(`live-seed-${live.settings.seed}.png`, blob));
}
