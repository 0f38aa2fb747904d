// Diffusion in the plane: a worker trains, this file shows it and takes the settings. The server
// hears of them when the hand rests, for the link and the code.

import { formatNumber, nextFrame, themeColours, themeValue } from "../shared/shared.js";
import { buildControls } from "./controls.js";
import { makePad } from "./pad.js";
import { errorAt, paintLosses, paintPanel } from "./panels.js";
import { canvasPen, svgPen } from "./pens.js";
import { float64s } from "./points.js";
import { makeSchedule } from "./process.js";

const REST_MS = 500; // from the last change until the server hears of it
const PASS_MS = 4500; // from noise to data
const HOLD_MS = 1200; // at the end, before it starts again
const EXPORTED = 640; // pixels of a panel in a file
// What does not need a new network; all else starts anew.
const SHOWN_ONLY = ["field", "paths", "direction", "level"];
const SAMPLED_ONLY = ["panels", "sampling_steps", "particles", "guidance_scale", "steps"];

export default function ({ data, parentElement, setStateValue }) {
  const box = parentElement.querySelector(".playground");
  const lab = (box.lab ??= open(box, data));
  lab.report = () => setStateValue("settings", reported(lab));
  receive(lab, data);
  return () => close(lab);
}

// ------------------------------------------------------------------------- the component's life

function open(box, data) {
  const part = (selector) => box.querySelector(selector);
  const lab = {
    box,
    part,
    settings: { ...data.settings },
    defaults: data.defaults,
    signals: Object.fromEntries(
      Object.entries(data.signals).map(([name, text]) => [name, float64s(text)]),
    ),
    titles: data.panels,
    images: {}, // {spec: points}
    running: true,
    finished: false,
    losses: {},
    rate: 0,
    playing: !matchMedia("(prefers-reduced-motion: reduce)").matches && data.settings.level === null,
    paths: {},
    field: {},
    data: { points: new Float64Array(0), labels: new Int8Array(0), epsilon: new Float64Array(0) },
  };
  lab.settings.level ??= 0;
  lab.clock = 0; // milliseconds of the present pass
  lab.redraw = nextFrame(() => lab.closed || paint(lab));
  lab.show = buildControls(part(".controls"), data.groups, (field, value) => set(lab, { [field]: value }));
  lab.showView = buildControls(part(".options"), data.view, (field, value) => set(lab, { [field]: value }));
  const pad = part(".pad");
  lab.controls = part(".controls");
  lab.controls.querySelector("details .group").append(pad);
  lab.pad = makePad(pad, data.most, (drawing) => set(lab, { drawing }));
  lab.pad.say();
  lab.watcher = new ResizeObserver(lab.redraw);
  lab.watcher.observe(part(".panels"));
  listen(lab);
  makeGallery(lab, data.gallery);
  if (matchMedia("(max-width: 40rem)").matches) {
    [...lab.controls.querySelectorAll("details")].slice(1).forEach((each) => { each.open = false; });
  }
  try {
    const address = URL.createObjectURL(new Blob([data.worker], { type: "text/javascript" }));
    lab.worker = new Worker(address);
    lab.worker.addEventListener("message", ({ data: message }) => hear(lab, message));
    lab.worker.addEventListener("error", (event) => say(lab, `Training failed: ${event.message}`));
  } catch (error) {
    say(lab, `This browser does not let the page compute beside itself: ${error.message}`);
  }
  return lab;
}

/** What the link holds: the time only where it stands still. */
function reported({ settings, playing }) {
  return { ...settings, level: playing ? null : Math.round(settings.level) };
}

function close(lab) {
  lab.closed = true;
  lab.watcher.disconnect();
  lab.worker?.terminate();
  clearTimeout(lab.resting);
}

/** What the server sends: points of images, and anything again. */
function receive(lab, { images }) {
  const first = !lab.begun;
  if (images) lab.images[images.spec] = images;
  const came = images && lab.settings.data === "images" && lab.wanted === images.spec;
  if (first || came) begin(lab);
}

function listen(lab) {
  const { part } = lab;
  part(".train").addEventListener("click", () => run(lab, !lab.running));
  part(".reset").addEventListener("click", () => begin(lab));
  part(".play").addEventListener("click", () => play(lab, !lab.playing));
  const slider = part(".level");
  slider.addEventListener("input", () => {
    play(lab, false);
    set(lab, { level: slider.valueAsNumber });
  });
  part(".png").addEventListener("click", () => savePng(lab));
  part(".svg").addEventListener("click", () => saveSvg(lab));
  part(".json").addEventListener("click", () => tell(lab, { numbers: true }));
  part(".panels").addEventListener("keydown", (event) => {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (way) {
      play(lab, false);
      const level = Math.round(lab.settings.level) + way;
      set(lab, { level: Math.max(0, Math.min(lab.settings.timesteps, level)) });
    } else if (event.key === " ") {
      play(lab, !lab.playing);
    } else if (event.key === "t") {
      run(lab, !lab.running);
    } else if (event.key === "r") {
      begin(lab);
    } else {
      return;
    }
    event.preventDefault();
  });
}

function makeGallery(lab, gallery) {
  const list = lab.part(".gallery");
  list.append(...gallery.map(({ title, sentence, address, settings }) => {
    const link = document.createElement("a");
    const [name, words] = [document.createElement("strong"), document.createElement("span")];
    link.href = address;
    [name.textContent, words.textContent] = [title, sentence];
    link.append(name, words);
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return; // another tab, as for any link
      event.preventDefault();
      set(lab, { ...lab.defaults, level: 0, ...settings });
      play(lab, !matchMedia("(prefers-reduced-motion: reduce)").matches);
      lab.box.scrollIntoView({ block: "start" });
    });
    return link;
  }));
}

// ------------------------------------------------------------------------------------- settings

/** Change some settings, and with them what has to change. */
function set(lab, changes) {
  const before = lab.settings;
  const now = { ...before, ...changes };
  now.level = Math.min(now.level, now.timesteps);
  now.sampling_steps = Math.min(now.sampling_steps, now.timesteps);
  lab.settings = now;
  const changed = Object.keys(now).filter(
    (field) => JSON.stringify(now[field]) !== JSON.stringify(before[field]),
  );
  const anew = changed.some((field) => ![...SHOWN_ONLY, ...SAMPLED_ONLY].includes(field));
  if (anew || now.steps < before.steps) {
    begin(lab);
  } else if (changed.some((field) => SAMPLED_ONLY.includes(field))) {
    tell(lab, { show: now });
    makePanels(lab);
    if (lab.finished) run(lab, true); // more steps, or another network
  }
  display(lab);
  if (changed.length) reportLater(lab);
}

/** Tell the server when the hand rests. */
function reportLater(lab) {
  clearTimeout(lab.resting);
  lab.resting = setTimeout(() => lab.report(), REST_MS);
}

function tell(lab, message) {
  lab.worker?.postMessage(message, []);
}

/** A new network and new particles. */
function begin(lab) {
  const { settings } = lab;
  lab.begun = true;
  lab.turn = (lab.turn ?? 0) + 1; // what the worker says of earlier ones comes too late
  lab.losses = {};
  [lab.paths, lab.field] = [{}, {}];
  lab.finished = false;
  const signal = lab.signals[`${settings.kind} ${settings.timesteps}`];
  lab.schedules = {
    epsilon: makeSchedule(settings.timesteps, signal), flow: makeSchedule(settings.timesteps),
  };
  makePanels(lab);
  display(lab);
  const given = settings.data === "images" ? lab.images[settings.images] : undefined;
  if (settings.data === "images" && !given) {
    lab.wanted = settings.images;
    tell(lab, { run: false });
    say(lab, "Waiting for the images …");
    return;
  }
  lab.wanted = undefined;
  const points = given && { points: float64s(given.points), labels: Int8Array.from(given.labels) };
  tell(lab, { begin: { settings, signal, given: points, turn: lab.turn }, run: true });
  lab.running = true;
  say(lab, settings.data === "drawing" && !settings.drawing ? "Draw some points." : "");
  display(lab);
}

function run(lab, running) {
  lab.running = running;
  if (running) lab.finished = false;
  tell(lab, { run: running });
  display(lab);
}

function play(lab, playing) {
  if (playing !== lab.playing) reportLater(lab);
  if (playing && !lab.playing) {
    const { level, timesteps, direction } = lab.settings;
    const done = direction === "forward" ? level / timesteps : 1 - level / timesteps;
    lab.clock = done < 1 ? done * PASS_MS : 0;
  }
  lab.playing = playing;
  lab.before = undefined;
  display(lab);
}

/** What the worker says. */
function hear(lab, { turn, data, progress, shown, numbers }) {
  if (turn !== lab.turn) return;
  if (data) lab.data = data;
  if (shown) [lab.paths, lab.field] = [shown.paths, shown.fields];
  if (progress) {
    for (const [objective, losses] of Object.entries(progress.losses)) {
      (lab.losses[objective] ??= []).push(...losses);
    }
    lab.rate = progress.rate;
    if (progress.finished) [lab.finished, lab.running] = [true, false];
    showProgress(lab);
  }
  if (numbers) save("playground.json", new Blob([JSON.stringify(numbers)], { type: "application/json" }));
  lab.redraw();
}

// -------------------------------------------------------------------------------------- display

function say(lab, sentence) {
  lab.part(".said").textContent = sentence;
}

function display(lab) {
  const { part, settings } = lab;
  lab.show(settings);
  lab.showView(settings);
  part(".pad").hidden = settings.data !== "drawing";
  part(".brushes").hidden = !settings.classes;
  lab.pad.show(settings.drawing);
  part(".level").max = settings.timesteps;
  part(".train").textContent = lab.running ? "Pause training" : "Train";
  part(".play").textContent = lab.playing ? "Pause" : "Play";
  showProgress(lab);
  showLegend(lab);
  lab.redraw();
}

/** The mean of the last losses. */
function lossText(losses) {
  const last = losses.slice(-100);
  const mean = last.reduce((sum, each) => sum + each, 0) / last.length;
  return Number.isFinite(mean) ? mean.toFixed(3) : "not finite";
}

/** What the marks and lines of the panels and of the curve mean. */
function showLegend(lab) {
  const { settings, box } = lab;
  const { classes, field, exact, quiet } = coloursOf(lab);
  const flow = settings.panels.includes("flow") && settings.panels.length > 1;
  const lines = { learned: [["→", field, "learned"]], exact: [["⇢", exact, "exact"]], off: [] };
  lines.both = [...lines.learned, ...lines.exact];
  const entries = [
    ...(settings.classes
      ? [["●", classes[0], "class 0"], ["■", classes[1], "class 1"]]
      : [["●", classes[0], "particles"]]),
    ["•", quiet, "data"],
    ...lines[settings.field],
    ...(flow ? [["—", field, "loss of ε"], ["- -", exact, "loss of the flow"]] : []),
  ];
  box.querySelector(".legend").replaceChildren(...entries.map(([mark, colour, text]) => {
    const [item, sign] = [document.createElement("span"), document.createElement("b")];
    [sign.textContent, sign.style.color] = [mark, colour];
    item.append(sign, ` ${text}`);
    return item;
  }));
}

function showProgress(lab) {
  const { part, losses, settings } = lab;
  const all = Object.values(losses);
  const least = all.length ? Math.min(...all.map((each) => each.length)) : 0;
  part(".step").textContent = `${formatNumber(least)} of ${formatNumber(settings.steps)}`;
  part(".loss").textContent = all.length
    ? all.map((each) => lossText(each)).join(" · ")
    : "–";
  part(".rate").textContent = lab.running && all.length ? formatNumber(Math.round(lab.rate)) : "–";
  part(".train").textContent = lab.running ? "Pause training" : "Train";
  if (lab.finished) part(".train").textContent = "Trained";
  part(".train").disabled = lab.finished;
}

function makePanels(lab) {
  const { panels } = lab.settings;
  const list = lab.part(".panels");
  if (panels.join() === lab.shownPanels) return;
  lab.shownPanels = panels.join();
  list.style.setProperty("--panels", panels.length);
  list.replaceChildren(...panels.map((panel) => {
    const [figure, canvas, caption] = ["figure", "canvas", "figcaption"].map((name) => (
      document.createElement(name)
    ));
    figure.dataset.panel = panel;
    const [name, error] = [document.createElement("strong"), document.createElement("span")];
    name.textContent = lab.titles[panel];
    caption.append(name, error);
    canvas.role = "img";
    figure.append(caption, canvas);
    return figure;
  }));
}

function coloursOf(lab) {
  const { box } = lab;
  const colours = themeColours(box, "chart-categorical-colors");
  return {
    classes: [colours[0], colours[1]],
    field: colours[2],
    exact: colours[3],
    text: themeValue(box, "text-color"),
    quiet: colours[6],
    background: themeValue(box, "background-color"),
  };
}

function viewOf(lab) {
  return { ...lab, colours: coloursOf(lab), level: lab.settings.level };
}

function paint(lab) {
  advance(lab);
  const { settings, part } = lab;
  const view = viewOf(lab);
  for (const figure of part(".panels").children) {
    const canvas = figure.querySelector("canvas");
    const size = Math.round(canvas.clientWidth * devicePixelRatio);
    if (!size) continue;
    if (canvas.width !== size) [canvas.width, canvas.height] = [size, size];
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, size, size);
    paintPanel(canvasPen(context), view, figure.dataset.panel, size);
    describe(lab, figure, canvas);
  }
  const slider = part(".level");
  slider.value = settings.level;
  const shown = Math.round(settings.level);
  const words = shown ? `t = ${shown - 1}: ${shown} of ${settings.timesteps} noise steps` : "data";
  if (slider.ariaValueText !== words) {
    slider.ariaValueText = words;
    part(".where").textContent = words;
  }
  const chart = part(".losses");
  const [width, height] = [chart.clientWidth, chart.clientHeight].map((x) => Math.round(x * devicePixelRatio));
  if (width && height) {
    if (chart.width !== width || chart.height !== height) [chart.width, chart.height] = [width, height];
    const context = chart.getContext("2d");
    paintLosses(context, lab.losses, settings.steps, view.colours, width, height);
  }
  if (lab.playing) lab.redraw();
}

/** Let the time go on where it plays. */
function advance(lab) {
  const { settings } = lab;
  const now = performance.now();
  if (lab.playing) {
    // A picture that was long in coming does not make the particles jump.
    lab.clock += Math.min(50, now - (lab.before ?? now));
    if (lab.clock > PASS_MS + HOLD_MS) lab.clock = -HOLD_MS / 2;
    const share = Math.max(0, Math.min(1, lab.clock / PASS_MS));
    settings.level = settings.timesteps * (settings.direction === "forward" ? share : 1 - share);
  }
  lab.before = now;
}

function describe(lab, figure, canvas) {
  const { panel } = figure.dataset;
  const model = lab.field[panel === "flow" ? "flow" : "epsilon"];
  const what = panel === "flow" ? "velocity" : "ε";
  let words = "";
  if (panel === "exact") words = `exact ${what}`;
  else if (model) words = `error of ${what} ${errorAt(model, lab.settings.level).toFixed(3)}`;
  const caption = figure.querySelector("span");
  if (caption.textContent === words) return;
  caption.textContent = words;
  const title = lab.titles[panel];
  canvas.ariaLabel = `${title}: ${lab.settings.particles} particles in the plane, their field and the data. ${words}`;
}

// ---------------------------------------------------------------------------------------- files

function save(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Paint all panels beside each other, `penAt(left)` being the pen of one. */
function paintAll(lab, penAt) {
  const view = viewOf(lab);
  const font = `600 22px ${themeValue(lab.box, "font") || "sans-serif"}`;
  lab.settings.panels.forEach((panel, k) => {
    const pen = penAt(k * EXPORTED);
    paintPanel(pen, view, panel, EXPORTED);
    pen.text(lab.titles[panel], 16, 30, { colour: view.colours.text, font });
  });
  return view.colours;
}

function savePng(lab) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [EXPORTED * lab.settings.panels.length, EXPORTED];
  const context = canvas.getContext("2d");
  context.fillStyle = themeValue(lab.box, "background-color");
  context.fillRect(0, 0, canvas.width, canvas.height);
  paintAll(lab, (left) => canvasPen(context, left));
  canvas.toBlob((blob) => save("playground.png", blob));
}

function saveSvg(lab) {
  const parts = [];
  const { background } = paintAll(lab, (left) => svgPen(parts, left));
  const width = EXPORTED * lab.settings.panels.length;
  const text = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${EXPORTED}">`
    + `<rect width="100%" height="100%" fill="${background}"/>${parts.join("\n")}</svg>`;
  save("playground.svg", new Blob([text], { type: "image/svg+xml" }));
}
