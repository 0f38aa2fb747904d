// Design a noise schedule: points of the log-SNR over the time from 0 to 1, each later point lower,
// and the monotone cubics through them of `diffusion_core.process.tables.interpolate`.

import { formatNumber, nextFrame, themeColours, themeValue } from "../shared/shared.js";
import { followTimestep } from "../shared/timestep.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 340;
const MARGIN = { left: 44, right: 14, top: 12, bottom: 40 };
const REST_MS = 250; // after the last move by keys
const CURVE = 240; // parts of the curve

export default function ({ data, parentElement, setStateValue }) {
  const box = parentElement.querySelector(".designer");
  const design = (box.design ??= open(box));
  design.tell = () => setStateValue("designed", [design.points, design.count]);
  const isNews = data.count >= design.count && !design.held && design.timer === undefined;
  design.data = data;
  if (isNews || !design.points) {
    design.count = Math.max(data.count, design.count);
    design.points = data.points.map((point) => [...point]);
  }
  choose(design, Math.min(design.chosen, design.points.length - 1));
  followTimestep(box, (t) => {
    design.t = Math.min(t, design.data.timesteps - 1);
    design.show();
  });
}

function open(box) {
  const found = (selector) => box.querySelector(selector);
  const design = {
    box,
    plot: found("svg"),
    output: found("output"),
    buttons: Object.fromEntries(["add", "remove", "reset"].map((name) => [name, found(`.${name}`)])),
    back: part("g", {}), // all but the points, which keep the focus
    circles: [],
    chosen: 0,
    count: 0, // how often the server has been told
    t: 0,
  };
  design.show = nextFrame(() => box.isConnected && draw(design));
  const { plot, buttons } = design;
  plot.append(design.back);
  plot.addEventListener("pointerdown", (event) => {
    const near = nearest(design, event);
    if (near < 0) return;
    event.preventDefault();
    plot.setPointerCapture(event.pointerId);
    design.held = true;
    choose(design, near);
    design.circles[near]?.focus();
  });
  plot.addEventListener("pointermove", (event) => {
    if (design.held) move(design, ...place(design, event));
  });
  for (const end of ["pointerup", "pointercancel"]) {
    plot.addEventListener(end, () => {
      if (!design.held) return;
      design.held = false;
      rest(design);
    });
  }
  plot.addEventListener("dblclick", (event) => add(design, place(design, event)[0]));
  plot.addEventListener("keydown", (event) => pressed(design, event));
  buttons.add.addEventListener("click", () => add(design, widestGap(design)));
  buttons.remove.addEventListener("click", () => remove(design));
  buttons.reset.addEventListener("click", () => {
    design.points = design.data.usual.map((point) => [...point]);
    choose(design, 0);
    rest(design);
  });
  new ResizeObserver(design.show).observe(box);
  return design;
}

/** The pixel of an event as time and log-SNR. */
function place(design, { clientX, clientY }) {
  const { left, top } = design.plot.getBoundingClientRect();
  const { x, y } = scales(design);
  return [x.valueAt(clientX - left), y.valueAt(clientY - top)];
}

/** The number of the point that a finger meets, -1 for none. */
function nearest(design, { clientX, clientY }) {
  const { left, top } = design.plot.getBoundingClientRect();
  const { x, y } = scales(design);
  const far = design.points.map(([time, value]) =>
    Math.hypot(x.at(time) - clientX + left, y.at(value) - clientY + top));
  const near = far.indexOf(Math.min(...far));
  return far[near] < 24 ? near : -1;
}

function pressed(design, event) {
  const large = event.shiftKey ? 10 : 1;
  const way = {
    ArrowLeft: [-0.01, 0], ArrowRight: [0.01, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1],
  }[event.key];
  if (way) {
    const [time, value] = design.points[design.chosen];
    move(design, time + large * way[0], value + large * way[1]);
    restSoon(design);
  } else if (event.key === "Delete" || event.key === "Backspace") {
    remove(design);
  } else {
    return;
  }
  event.preventDefault();
}

function within(low, high, wanted, digits) {
  return Number(Math.max(low, Math.min(wanted, high)).toFixed(digits));
}

/** The chosen point goes as far as the points beside it and the bounds let it. */
function move(design, time, value) {
  const { points, chosen, data } = design;
  const [before, after] = [points[chosen - 1], points[chosen + 1]];
  if (before && after) {
    points[chosen][0] = within(before[0] + data.leastTime, after[0] - data.leastTime, time, 3);
  }
  const high = before ? before[1] - data.leastDrop : data.highest;
  const low = after ? after[1] + data.leastDrop : -data.highest;
  points[chosen][1] = within(low, high, value, 2);
  design.show();
}

/** Another point on the curve, where there is room for it. */
function add(design, time) {
  const { points, data } = design;
  const next = points.findIndex((point) => point[0] > time);
  if (points.length >= data.most || next < 1) return;
  const [before, after] = [points[next - 1], points[next]];
  const rounded = Number(time.toFixed(3));
  const value = Number(monotone(points)(rounded).toFixed(2));
  const isLater = Math.min(rounded - before[0], after[0] - rounded) >= data.leastTime;
  const isLower = Math.min(before[1] - value, value - after[1]) >= data.leastDrop;
  if (!isLater || !isLower) return;
  points.splice(next, 0, [rounded, value]);
  choose(design, next);
  rest(design);
}

function widestGap({ points }) {
  const gaps = points.slice(1).map((point, k) => point[0] - points[k][0]);
  const at = gaps.indexOf(Math.max(...gaps));
  return points[at][0] + gaps[at] / 2;
}

/** The first and the last point stay. */
function remove(design) {
  const { points, chosen } = design;
  if (chosen === 0 || chosen === points.length - 1) return;
  points.splice(chosen, 1);
  choose(design, chosen);
  rest(design);
}

function choose(design, number) {
  design.chosen = Math.max(0, number);
  const { buttons, points, data } = design;
  buttons.remove.disabled = design.chosen === 0 || design.chosen === points.length - 1;
  buttons.add.disabled = points.length >= data.most;
  design.show();
}

function restSoon(design) {
  clearTimeout(design.timer);
  design.timer = setTimeout(() => rest(design), REST_MS);
}

function rest(design) {
  clearTimeout(design.timer);
  design.timer = undefined;
  design.count += 1;
  if (design.box.isConnected) design.tell();
}

const toBar = (logSnr) => 1 / (1 + Math.exp(-logSnr));

function scales({ plot, data }) {
  const width = plot.clientWidth - MARGIN.left - MARGIN.right;
  const height = HEIGHT - MARGIN.top - MARGIN.bottom;
  const { highest, asBar } = data;
  const shareOf = (value) => (asBar ? toBar(value) : (value + highest) / (2 * highest));
  const valueOf = (share) => {
    const inside = Math.max(1e-7, Math.min(share, 1 - 1e-7));
    return asBar ? Math.log(inside / (1 - inside)) : 2 * highest * share - highest;
  };
  return {
    x: {
      at: (time) => MARGIN.left + width * time,
      valueAt: (pixel) => (pixel - MARGIN.left) / width,
    },
    y: {
      at: (value) => MARGIN.top + height * (1 - Math.max(0, Math.min(shareOf(value), 1))),
      valueAt: (pixel) => valueOf(1 - (pixel - MARGIN.top) / height),
      atShare: (share) => MARGIN.top + height * (1 - share),
    },
  };
}

function draw(design) {
  const { plot, points, data, chosen } = design;
  if (!plot.clientWidth) return;
  const { x, y } = scales(design);
  const last = data.timesteps - 1;
  const colours = themeColours(plot, "chart-categorical-colors");
  const grey = themeValue(plot, "gray-text-color");
  const curve = monotone(points);
  const parts = [];
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    const value = data.asBar ? share : (2 * share - 1) * data.highest;
    const at = y.atShare(share);
    const ends = { x1: x.at(0), x2: x.at(1), y1: at, y2: at };
    parts.push(part("line", { ...ends, stroke: themeValue(plot, "border-color") }));
    parts.push(label(`${value}`.replace("-", "−"), { x: x.at(0) - 8, y: at + 4 }, "end"));
    const t = formatNumber(Math.round(share * last));
    parts.push(label(t, { x: x.at(share), y: y.atShare(0) + 18 }, "middle"));
  }
  const axis = data.asBar ? "ᾱ" : "log-SNR";
  parts.push(label(axis, { x: x.at(0) + 6, y: MARGIN.top + 16 }, "start"));
  parts.push(label("timestep t", { x: x.at(0.5), y: HEIGHT - 4 }, "middle"));
  Object.entries(data.others).forEach(([name, values], k) => {
    const path = values.map((value, at) => [at / (values.length - 1), value]);
    parts.push(line(path, x, y, { stroke: grey, "stroke-dasharray": "5 4" }));
    const at = path[Math.round((0.62 + 0.12 * k) * (path.length - 1))] ?? path.at(-1);
    parts.push(label(name, { x: x.at(at[0]) + 4, y: y.at(at[1]) - 6 }, "start"));
  });
  const times = Array.from({ length: CURVE + 1 }, (_, k) => k / CURVE);
  const path = times.map((time) => [time, curve(time)]);
  parts.push(line(path, x, y, { stroke: colours[4], "stroke-width": 2.5 }));
  const now = design.t / last;
  const cursor = { x1: x.at(now), x2: x.at(now), y1: y.atShare(0), y2: y.atShare(1) };
  parts.push(part("line", { ...cursor, stroke: grey, "stroke-dasharray": "2 3" }));
  design.back.replaceChildren(...parts);
  while (design.circles.length > points.length) design.circles.pop().remove();
  points.forEach(([time, value], number) => {
    design.circles[number] ??= addCircle(design, number);
    const where = `log-SNR ${value} at t = ${Math.round(time * last)}`;
    put(design.circles[number], {
      cx: x.at(time),
      cy: y.at(value),
      r: number === chosen ? 9 : 7,
      fill: colours[4],
      stroke: themeValue(plot, "background-color"),
      "aria-label": `Point ${number + 1} of ${points.length}`,
      "aria-valuemin": -data.highest,
      "aria-valuemax": data.highest,
      "aria-valuenow": value,
      "aria-valuetext": where,
    });
  });
  plot.setAttribute("height", HEIGHT);
  plot.setAttribute("aria-label", `Points of your own schedule: ${axis} over the timesteps`);
  const logSnr = curve(now);
  const words = [["log-SNR", logSnr.toFixed(4)], ["ᾱ", toBar(logSnr).toFixed(4)]];
  design.output.textContent = `at t = ${formatNumber(design.t)}: ${words
    .map(([name, value]) => `${name} ${value.replace("-", "−")}`)
    .join(", ")}`;
}

/** Of the parabola through the first or last three points, as long as it falls. */
function slopeAtEnd(h, nextH, slope, nextSlope) {
  return Math.min(0, ((2 * h + nextH) * slope - h * nextSlope) / (h + nextH));
}

/** The monotone cubics through the points, as a function of the time. */
function monotone(points) {
  const x = points.map((point) => point[0]);
  const y = points.map((point) => point[1]);
  const h = x.slice(1).map((each, k) => each - x[k]);
  const slope = h.map((each, k) => (y[k + 1] - y[k]) / each);
  const inner = slope.slice(1).map((after, k) => {
    const [one, other] = [2 * h[k + 1] + h[k], h[k + 1] + 2 * h[k]];
    return (one + other) / (one / slope[k] + other / after);
  });
  const steepness = slope.length === 1 ? [slope[0], slope[0]] : [
    slopeAtEnd(h[0], h[1], slope[0], slope[1]),
    ...inner,
    slopeAtEnd(h.at(-1), h.at(-2), slope.at(-1), slope.at(-2)),
  ];
  return (time) => {
    const k = Math.max(0, x.findLastIndex((each, at) => each <= time && at < h.length));
    const u = (time - x[k]) / h[k];
    return (
      (1 + 2 * u) * (1 - u) ** 2 * y[k] +
      u * (1 - u) ** 2 * h[k] * steepness[k] +
      u ** 2 * (3 - 2 * u) * y[k + 1] +
      u ** 2 * (u - 1) * h[k] * steepness[k + 1]
    );
  };
}

function addCircle(design, number) {
  const fixed = { class: "point", "stroke-width": 2, tabindex: 0, role: "slider" };
  const circle = part("circle", fixed);
  circle.addEventListener("focus", () => {
    if (design.chosen !== number) choose(design, number);
  });
  design.plot.append(circle);
  return circle;
}

function part(name, attributes) {
  return put(document.createElementNS(SVG, name), attributes);
}

function put(element, attributes) {
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function line(path, x, y, attributes) {
  const points = path.map(([time, value]) => `${x.at(time)},${y.at(value)}`).join(" ");
  return part("polyline", { points, fill: "none", ...attributes });
}

function label(text, where, anchor) {
  const element = part("text", { ...where, "text-anchor": anchor });
  element.textContent = text;
  return element;
}
