// Small figures that follow the hand: axes, bars, lines and points as SVG, and their downloads.

import { save, saveCsv } from "../shared/files.js";
import { themeColours, themeValue } from "../shared/shared.js";

const [WIDTH, HEIGHT] = [420, 260];
const EDGE = { left: 48, right: 12, top: 30, bottom: 40 };
const SHARP = 3; // pixels of a PNG per pixel of the figure
const DASHES = ["", "7 4", "2 3"];

/**
 * A figure in `box`, an element with the class "plot". `x` and `y` are the axes: { title, low, high,
 * log }, of which `draw` may change the ends. `file` is the name of the downloads.
 */
export function openPlot(box, { x, y, file }) {
  const plot = { box, x, y, file, curves: [], marks: [] };
  box.innerHTML = `<div class="figure" role="img"></div><div class="save" role="group"
    aria-label="Download the figure"></div>`;
  plot.figure = box.querySelector(".figure");
  const kinds = { PNG: savePng, SVG: saveSvg, CSV: saveNumbers };
  for (const [name, act] of Object.entries(kinds)) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.addEventListener("click", () => act(plot));
    box.querySelector(".save").append(button);
  }
  return plot;
}

/**
 * Draw curves { name, kind, x, y }, `kind` being "bars", "line" or "points", each in the next colour
 * of the theme, and upright `marks` { x, name }. `alt` says what is seen.
 */
export function drawPlot(plot, curves, alt, marks = []) {
  Object.assign(plot, { curves, marks });
  plot.figure.setAttribute("aria-label", alt);
  plot.figure.innerHTML = picture(plot);
}

function picture({ box, x, y, curves, marks }) {
  const [text, line] = [themeValue(box, "text-color"), themeValue(box, "border-color")];
  const colours = themeColours(box, "chart-categorical-colors");
  const along = scale(x, EDGE.left, WIDTH - EDGE.right);
  const up = scale(y, HEIGHT - EDGE.bottom, EDGE.top);
  const bottom = HEIGHT - EDGE.bottom;
  const parts = [];
  for (const tick of ticks(y)) {
    parts.push(`<path d="M${EDGE.left} ${up(tick)}H${WIDTH - EDGE.right}" stroke="${line}"/>`);
    parts.push(label(EDGE.left - 6, up(tick) + 4, "end", written(tick)));
  }
  for (const tick of ticks(x)) {
    parts.push(`<path d="M${along(tick)} ${bottom}v4" stroke="${text}"/>`);
    parts.push(label(along(tick), bottom + 16, "middle", written(tick)));
  }
  parts.push(label((EDGE.left + WIDTH - EDGE.right) / 2, HEIGHT - 5, "middle", x.title));
  const middle = (EDGE.top + bottom) / 2;
  parts.push(`<g transform="rotate(-90 12 ${middle})">${label(12, middle, "middle", y.title)}</g>`);
  let at = EDGE.left;
  curves.forEach((curve, k) => {
    const [colour, dash] = [colours[k % colours.length], DASHES[k % DASHES.length]];
    parts.push(`<path d="${path(curve, along, up)}" ${look(curve.kind, colour, dash)}/>`);
    parts.push(`<path d="M${at} 12h18" stroke="${colour}" stroke-dasharray="${
      curve.kind === "line" ? dash : ""}" stroke-width="${curve.kind === "line" ? 2 : 7}"/>`);
    parts.push(label(at + 23, 16, "start", curve.name));
    at += 40 + 6.6 * curve.name.length;
  });
  for (const mark of marks) {
    const where = along(mark.x);
    const left = where > WIDTH * 0.6;
    parts.push(`<path d="M${where} ${EDGE.top}V${bottom}" stroke="${text}" stroke-dasharray="3 3"/>`);
    parts.push(label(where + (left ? -5 : 5), EDGE.top + 12, left ? "end" : "start", mark.name));
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" fill="${text}"
    font-family="sans-serif" font-size="12" aria-hidden="true">${parts.join("")}</svg>`;
}

const label = (x, y, anchor, words) => (
  `<text x="${x}" y="${y}" text-anchor="${anchor}">${words}</text>`
);

const look = (kind, colour, dash) => ({
  bars: `fill="${colour}" fill-opacity="0.6"`,
  line: `fill="none" stroke="${colour}" stroke-width="2" stroke-dasharray="${dash}"`,
  points: `stroke="${colour}" stroke-width="5" stroke-linecap="round"`,
}[kind]);

function path({ kind, x, y }, along, up) {
  let words = "";
  if (kind === "bars") {
    const half = (x[1] - x[0]) / 2;
    for (let k = 0; k < x.length; k += 1) {
      const [left, right] = [along(x[k] - half), along(x[k] + half)];
      if (y[k]) words += `M${left} ${up(0)}V${up(y[k])}H${right}V${up(0)}z`;
    }
    return words;
  }
  for (let k = 0; k < x.length; k += 1) {
    const step = kind === "points" || k === 0 ? "M" : "L";
    words += `${step}${along(x[k])} ${up(y[k])}${kind === "points" ? "h0" : ""}`;
  }
  return words;
}

/** From an axis's values to pixels; values outside lie at its ends. */
function scale({ low, high, log }, from, to) {
  const of = log ? Math.log10 : (value) => value;
  const [start, end] = [of(low), of(high)];
  return (value) => {
    const share = (of(Math.max(value, low)) - start) / (end - start);
    return Math.round((from + (to - from) * Math.min(1, share)) * 10) / 10;
  };
}

/** Round values on an axis. */
function ticks({ low, high, log }) {
  if (log) {
    const first = Math.ceil(Math.log10(low) - 1e-9);
    const powers = Math.floor(Math.log10(high) + 1e-9) - first + 1;
    const every = Math.ceil(powers / 6);
    const found = Array.from({ length: powers }, (_, k) => 10 ** (first + k));
    if (powers > 2) return found.filter((_, k) => k % every === 0);
    return found.flatMap((power) => [power, 2 * power, 5 * power]).filter((x) => x <= high * 1.001);
  }
  const step = roundUp((high - low) / 6);
  const first = Math.ceil(low / step - 1e-9);
  const count = Math.floor(high / step + 1e-9) - first + 1;
  return Array.from({ length: count }, (_, k) => (first + k) * step);
}

/** The next larger of 1, 2, 5, 10, 20, … */
export function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find((round) => round * power >= value * 0.999);
}

function written(value) {
  const digits = Math.abs(value) >= 1e4 || (value && Math.abs(value) < 1e-3)
    ? value.toExponential(0).replace("e+", "e") : String(Math.round(value * 1e6) / 1e6);
  return digits.replace("-", "−");
}

const saveSvg = ({ figure, file }) => save(
  `${file}.svg`, new Blob([figure.innerHTML], { type: "image/svg+xml" }),
);

function savePng({ box, figure, file }) {
  const image = new Image();
  image.addEventListener("load", () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [WIDTH * SHARP, HEIGHT * SHARP];
    const context = canvas.getContext("2d");
    context.fillStyle = themeValue(box, "background-color");
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => save(`${file}.png`, blob));
  });
  image.src = `data:image/svg+xml,${encodeURIComponent(figure.innerHTML)}`;
}

/** A row for each point. */
function saveNumbers({ x, y, curves, file }) {
  const rows = curves.flatMap((curve) => (
    Array.from(curve.x, (value, k) => [curve.name, value, curve.y[k]])
  ));
  saveCsv(`${file}.csv`, [["curve", x.title, y.title], ...rows]);
}
