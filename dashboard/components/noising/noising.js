// An image, noise and what the forward process makes of them, mixed in the browser: timestep,
// schedule and strength of the noise repaint without the server, which hears of the last two once
// the hand rests.

import { drawPlot, openPlot, roundUp } from "../plot/plot.js";
import { save } from "../shared/files.js";
import { formatNumber, nextFrame } from "../shared/shared.js";
import { followTimestep, moveTimestep } from "../shared/timestep.js";
import { openMixer } from "./mixer.js";

const REST_MS = 250;
const BARS = { low: -5, high: 5, count: 100 };
const SHOWN = 512; // pixels of the downloaded image, so that its own stay crisp

export default function ({ data, parentElement, setStateValue }) {
  const box = parentElement.querySelector(".noising");
  const view = (box.view ??= open(box));
  view.tell = () => setStateValue("settings", { ...view.settings, count: view.count });
  update(view, data);
  followTimestep(box, (t) => {
    view.t = t;
    view.redraw();
  });
}

function open(box) {
  const part = (selector) => box.querySelector(selector);
  const view = {
    box,
    part,
    settings: {},
    count: 0, // how often the server has been told
    canvases: Object.fromEntries(["x_0", "noise", "x_t"].map((name) => [name, part(`.${name} canvas`)])),
    histogram: openPlot(part(".histogram"), {
      x: { title: "value", low: BARS.low, high: BARS.high }, y: { title: "density", low: 0 },
      file: "noising-histogram",
    }),
    quantiles: openPlot(part(".quantiles"), {
      x: { title: "quantile of N(0, 1)", low: -3, high: 3 },
      y: { title: "quantile of xₜ" },
      file: "noising-quantiles",
    }),
    spectrum: openPlot(part(".spectrum .plot"), {
      x: { title: "cycles per image", low: 1, log: true },
      y: { title: "power", log: true },
      file: "noising-spectrum",
    }),
  };
  view.redraw = nextFrame(() => box.isConnected && view.mixer && draw(view));
  const set = (name, value) => {
    if (view.settings[name] === value) return;
    view.settings = { ...view.settings, [name]: value };
    clearTimeout(view.rest);
    view.rest = setTimeout(() => {
      view.rest = undefined;
      view.count += 1;
      view.tell();
    }, REST_MS);
    view.redraw();
  };
  part(".kind").addEventListener("change", (event) => set("kind", event.target.value));
  part(".strength").addEventListener("input", (event) => set("strength", event.target.valueAsNumber));
  for (const button of box.querySelectorAll(".show button")) {
    button.addEventListener("click", () => set("plot", button.value));
  }
  part(".download").addEventListener("click", () => saveImage(view));
  return view;
}

function update(view, data) {
  const { part, box } = view;
  if (data.count >= view.count && view.rest === undefined) { // else the hand is ahead of the server
    view.count = data.count;
    view.settings = data.settings;
  }
  const old = view.data;
  view.data = data;
  if (!old || old.pixels !== data.pixels || old.noise !== data.noise) {
    view.mixer?.close();
    view.pixels = bytes(data.pixels);
    view.noise = new Float32Array(bytes(data.noise).buffer);
    view.mixer = openMixer(data.size, view.pixels, view.noise);
    view.values = new Float32Array(view.pixels.length);
    view.mixer.draw(view.canvases.x_0, 1, 0);
    view.mixer.draw(view.canvases.noise, 0, 1 / data.noiseRange);
    box.dataset.mixer = view.mixer.kind;
  }
  if (!old || JSON.stringify(old.kinds) !== JSON.stringify(data.kinds)) {
    view.tables = Object.fromEntries(data.kinds.map(({ name, signal, spread }) => (
      [name, [signal, spread].map((table) => new Float32Array(bytes(table).buffer))]
    )));
    part(".kind").replaceChildren(...data.kinds.map(({ name, title }) => new Option(title, name)));
  }
  part(".what").textContent = data.what;
  part(".range").textContent = `from −${data.noiseRange} (black) to ${data.noiseRange} (white)`;
  if (!old || String(old.strip) !== String(data.strip)) openStrip(view, data.strip);
  view.drawn = undefined;
  view.redraw();
}

/** Small images at fixed timesteps; a press goes to one. */
function openStrip(view, timesteps) {
  view.strip = timesteps.map((t) => {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-label", `Go to t = ${t}`);
    button.append(document.createElement("canvas"), `t = ${formatNumber(t)}`);
    button.addEventListener("click", () => moveTimestep(t));
    return [t, button];
  });
  view.part(".strip").replaceChildren(...view.strip.map(([, button]) => button));
}

function draw(view) {
  const { part, settings, tables, canvases, mixer, data } = view;
  const { kind, strength, plot } = settings;
  const [signals, spreads] = tables[kind] ?? Object.values(tables)[0];
  const t = Math.min(view.t ?? 0, signals.length - 1);
  const [signal, spread] = [signals[t], spreads[t]];
  mixer.draw(canvases.x_t, signal, spread * strength);
  view.box.dataset.t = t; // of what is on the canvas
  const strip = `${kind} ${strength}`;
  if (view.drawn !== strip) {
    view.drawn = strip;
    for (const [at, button] of view.strip) {
      mixer.draw(button.firstChild, signals[at], spreads[at] * strength);
    }
  }
  for (const [at, button] of view.strip) button.setAttribute("aria-pressed", at === t);

  part(".kind").value = kind;
  part(".strength").value = strength;
  const times = strength.toFixed(2);
  part(".times").textContent = times;
  part(".strength").setAttribute("aria-valuetext", `${times} times`);
  const said = {
    ".at": t, ".signal": signal.toFixed(4), ".spread": spread.toFixed(4),
    ".factor": strength === 1 ? "" : ` · ${times}`,
  };
  for (const [name, words] of Object.entries(said)) part(name).textContent = words;
  canvases.x_t.setAttribute("aria-label", `The image with the noise of timestep ${t}`);
  for (const button of view.box.querySelectorAll(".show button")) {
    button.setAttribute("aria-pressed", button.value === plot);
  }
  part(".values").hidden = plot !== "Values";
  part(".spectrum").hidden = plot !== "Spectrum";
  if (plot === "Values") drawValues(view, t, signal, spread * strength);
  else drawSpectrum(view, t, signals, spreads.map((each) => each * strength), data.spectrum);
}

function drawValues(view, t, signal, spread) {
  const { pixels, noise, values, data } = view;
  const { low, high, count } = BARS;
  const bars = new Float64Array(count);
  const width = (high - low) / count;
  let [sum, squares] = [0, 0];
  for (let k = 0; k < values.length; k += 1) {
    const value = signal * (pixels[k] / 127.5 - 1) + spread * noise[k];
    values[k] = value;
    sum += value;
    squares += value * value;
    bars[Math.max(0, Math.min(count - 1, Math.floor((value - low) / width)))] += 1;
  }
  const mean = sum / values.length;
  const std = Math.sqrt(Math.max(0, squares / values.length - mean ** 2));
  const edges = Array.from({ length: count + 1 }, (_, k) => low + k * width);
  const density = Array.from(bars, (number) => number / values.length / width);
  const normal = edges.map((x) => Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI));
  view.histogram.y.high = Math.max(0.5, roundUp(density.reduce((most, d) => Math.max(most, d))));
  drawPlot(view.histogram, [
    { name: "xₜ", kind: "bars", x: edges.slice(0, -1).map((x) => x + width / 2), y: density },
    { name: "N(0, 1)", kind: "line", x: edges, y: normal },
  ], `Histogram of the values of the noised image at t = ${t} and the density of N(0, 1)`);

  values.sort();
  const found = data.probabilities.map((p) => {
    const at = p * (values.length - 1);
    const below = Math.floor(at);
    const above = Math.min(below + 1, values.length - 1);
    return values[below] + (at - below) * (values[above] - values[below]);
  });
  view.quantiles.y.high = Math.max(4, Math.ceil(Math.max(-found[0], found[found.length - 1])));
  view.quantiles.y.low = -view.quantiles.y.high;
  drawPlot(view.quantiles, [
    { name: "xₜ", kind: "points", x: data.quantiles, y: found },
    { name: "equal", kind: "line", x: [-3, 3], y: [-3, 3] },
  ], `Quantiles of the noised image at t = ${t} against those of N(0, 1); equal ones lie on the line`);
  view.part(".moments").textContent = `All ${formatNumber(values.length)} values of xₜ: `
    + `mean ${signed(mean)}, standard deviation ${std.toFixed(4)}. N(0, 1) has 0 and 1.`;
}

/** The rings' power is exact: that of a sum is the sum of both and of the product of the two. */
function drawSpectrum(view, t, signals, spreads, { cycles, image, noise, cross }) {
  const plot = view.spectrum;
  const [signal, spread] = [signals[t], spreads[t]];
  const kept = image.map((power) => signal ** 2 * power);
  const added = noise.map((power) => spread ** 2 * power);
  const both = cycles.map((_, k) => kept[k] + added[k] + 2 * signal * spread * cross[k]);
  plot.x.high = cycles[cycles.length - 1];
  const most = Math.max(...image, ...noise);
  [plot.y.low, plot.y.high] = [1e-4, 10 ** Math.ceil(Math.log10(most))];
  // From here on the noise is above, in every finer ring.
  let first = cycles.length;
  while (first > 0 && added[first - 1] >= kept[first - 1]) first -= 1;
  const over = first < cycles.length;
  const { size } = view.data;
  const words = over
    ? `From ${cycles[first]} cycles per image on the noise is stronger: what repeats every `
      + `${Number((size / cycles[first]).toFixed(1))} pixels or closer is lost in it.`
    : "Down to its finest details the image is stronger than the noise.";
  drawPlot(plot, [
    { name: "xₜ", kind: "points", x: cycles, y: both },
    { name: "image in it", kind: "line", x: cycles, y: kept },
    { name: "noise in it", kind: "line", x: cycles, y: added },
  ], `Power of the noised image at t = ${t} by frequency, and of the image and the noise in it. ${words}`,
  over ? [{ x: cycles[first], name: "noise overtakes" }] : []);
  view.part(".overtaken").textContent = words;
  // The scales from coarse to fine, each half of the one before.
  const scales = cycles.filter((each) => Number.isInteger(Math.log2(each))).toReversed();
  const ends = scales.map((each) => {
    const at = signals.findIndex((_, s) => (
      spreads[s] ** 2 * noise[each - 1] >= signals[s] ** 2 * image[each - 1]
    ));
    return [`${size / each} pixels`, at < 0 ? "never" : `t = ${formatNumber(at)}`];
  });
  view.part(".order tbody").innerHTML = ends.map((cells) => (
    `<tr>${cells.map((cell) => `<td>${cell}</td>`).join("")}</tr>`
  )).join("");
}

/** x_t with enlarged pixels. */
function saveImage(view) {
  const { canvases: { x_t }, box } = view;
  const times = Math.max(1, Math.floor(SHOWN / x_t.width));
  const large = document.createElement("canvas");
  large.width = large.height = x_t.width * times;
  const context = large.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(x_t, 0, 0, large.width, large.height);
  large.toBlob((blob) => save(`noising-t${box.dataset.t}.png`, blob));
}

const signed = (value) => value.toFixed(4).replace("-", "−");

function bytes(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}
