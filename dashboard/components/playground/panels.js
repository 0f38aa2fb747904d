// What a panel shows: the data, the field, the particles' ways and the particles at one moment.

import { canvasPen } from "./pens.js";

const SHOWN_EDGE = 3; // the plane is shown from -SHOWN_EDGE to SHOWN_EDGE
const WAYS = 30; // particles whose ways are shown
const ARROW = 0.085; // of the plane per unit of what is predicted
const LONGEST = 3.5; // units
const DOT = 0.0085; // of the panel, the radius of a particle

/** Paint one panel of `size` pixels with a pen. `view` holds all that is known at this moment. */
export function paintPanel(pen, view, panel, size) {
  const { data, field, settings, colours, level } = view;
  const path = view.paths[panel];
  const objective = panel === "flow" ? "flow" : "epsilon";
  const place = (points) => toPixels(points, size);
  pen.dots(place(data.points), 0.5 * DOT * size, { colour: colours.quiet, alpha: 0.55 });
  const model = field[objective];
  if (model) paintField(pen, model, { ...view, size, exactOnly: panel === "exact" });
  const forward = settings.direction === "forward";
  const moving = forward ? noised(view, objective) : path && follow(path, level);
  if (!moving) return;
  const labels = forward ? data.labels : null;
  const dots = (points, alpha) => {
    for (const label of settings.classes ? [0, 1] : [null]) {
      const chosen = label === null ? points : ofClass(points, labels, label);
      pen.dots(place(chosen), DOT * size, {
        colour: colours.classes[label ?? 0], alpha, square: label === 1,
      });
    }
  };
  if (!settings.paths) return dots(moving, 0.85);
  const count = Math.min(WAYS, moving.length / 2);
  dots(moving, 0.3);
  const ways = forward ? noisedWays(view, objective, count) : wayLines(path, level, count);
  pen.lines(ways.map(place), 0.004 * size, { colour: colours.text, alpha: 0.5 });
  dots(moving.subarray(0, 2 * count), 1);
}

function toPixels(points, size) {
  const out = new Float32Array(points.length);
  for (let k = 0; k < points.length; k += 2) {
    out[k] = (points[k] / SHOWN_EDGE + 1) * size / 2;
    out[k + 1] = (1 - points[k + 1] / SHOWN_EDGE) * size / 2;
  }
  return out;
}

/** The points of one class; particles that are sampled are of the classes in turns. */
function ofClass(points, labels, label) {
  const out = [];
  for (let k = 0; k < points.length / 2; k++) {
    if ((labels ? labels[k] : k % 2) === label) out.push(points[2 * k], points[2 * k + 1]);
  }
  return out;
}

/** Between which two of some falling levels a level lies, and at which share of the way. */
function between(levels, level) {
  let at = 0;
  while (at + 2 < levels.length && levels[at + 1] >= level) at += 1;
  const width = levels[at] - levels[at + 1];
  return [at, Math.max(0, Math.min(1, (levels[at] - level) / width))];
}

/** Where sampled particles are at a level, between their steps on a straight line. */
function follow({ positions, size, levels }, level) {
  const [at, share] = between(levels, level);
  const out = new Float32Array(size);
  for (let k = 0; k < size; k++) {
    const start = positions[at * size + k];
    out[k] = start + share * (positions[(at + 1) * size + k] - start);
  }
  return out;
}

/** The ways of the first particles, down to a level. */
function wayLines(path, level, count) {
  const { positions, size, levels } = path;
  const [at] = between(levels, level);
  const here = follow(path, level);
  return Array.from({ length: count }, (_, particle) => {
    const line = [];
    for (let step = 0; step <= at; step++) {
      line.push(positions[step * size + 2 * particle], positions[step * size + 2 * particle + 1]);
    }
    return [...line, here[2 * particle], here[2 * particle + 1]];
  });
}

/** The data with their noise at a level, from the formula. */
function noised({ data, level, schedules, settings }, objective, at = level) {
  const count = Math.min(settings.particles, data.labels.length);
  const { signal, spread } = sharesAt(schedules[objective], at);
  const out = new Float32Array(2 * count);
  for (let k = 0; k < out.length; k++) out[k] = signal * data.points[k] + spread * data.epsilon[k];
  return out;
}

function noisedWays(view, objective, count) {
  const lines = Array.from({ length: count }, () => []);
  const steps = 24;
  for (let step = 0; step <= steps; step++) {
    const points = noised(view, objective, view.level * step / steps);
    lines.forEach((line, k) => line.push(points[2 * k], points[2 * k + 1]));
  }
  return lines;
}

/** signal and spread at a level; 0 is the data, 1 the first timestep. */
function sharesAt({ signal, spread }, level) {
  const low = Math.floor(level);
  const part = level - low;
  const mix = (table, start) => {
    const one = low ? table[low - 1] : start;
    return part ? one + part * (table[low] - one) : one;
  };
  return { signal: mix(signal, 1), spread: mix(spread, 0) };
}

/** What the model predicts at a grid of points, as arrows the way that time runs. */
function paintField(pen, model, { settings, colours, level, size, exactOnly }) {
  const { grid } = model;
  const kinds = { learned: ["learned"], exact: ["exact"], both: ["exact", "learned"], off: [] };
  const shown = kinds[settings.field].length && exactOnly ? ["exact"] : kinds[settings.field];
  const sign = settings.direction === "forward" ? 1 : -1;
  const falling = model.falling ??= model.levels.toReversed();
  const [at, share] = between(falling, level);
  const rows = [model.levels.length - 1 - at, model.levels.length - 2 - at];
  for (const kind of shown) {
    const lines = [];
    for (let k = 0; k < grid.length; k += 2) {
      const [x, y] = [0, 1].map((part) => {
        const [one, other] = rows.map((row) => model[kind][row * grid.length + k + part]);
        return sign * (one + share * (other - one));
      });
      const length = Math.hypot(x, y);
      const scale = ARROW * Math.min(1, LONGEST / (length || 1));
      lines.push(...arrow(grid[k], grid[k + 1], scale * x, scale * y));
    }
    pen.lines(lines.map((line) => toPixels(line, size)), 0.003 * size, {
      colour: kind === "exact" ? colours.exact : colours.field,
      alpha: 0.75,
      dashed: kind === "exact",
    });
  }
}

function arrow(x, y, dx, dy) {
  const [endX, endY] = [x + dx, y + dy];
  const head = 0.3;
  const wing = (side) => [
    endX - head * (dx - side * 0.6 * dy), endY - head * (dy + side * 0.6 * dx),
  ];
  return [[x, y, endX, endY], [...wing(1), endX, endY, ...wing(-1)]];
}

/** The error of what a model predicts, at a level. */
export function errorAt(model, level) {
  const [at, share] = between(model.levels.toReversed(), level);
  const errors = model.errors.toReversed();
  return errors[at] + share * (errors[at + 1] - errors[at]);
}

/** The losses as a line, each point the mean of a stretch. */
export function paintLosses(context, losses, steps, colours, width, height) {
  context.clearRect(0, 0, width, height);
  const lines = Object.entries(losses).map(([objective, all]) => {
    const stretch = Math.max(1, Math.ceil(steps / 150));
    const points = [];
    for (let start = 0; start < all.length; start += stretch) {
      const some = all.slice(start, start + stretch);
      points.push([start + some.length / 2, some.reduce((sum, each) => sum + each, 0) / some.length]);
    }
    return [objective, points];
  });
  const values = lines.flatMap(([, points]) => points.map(([, value]) => value)).filter(Number.isFinite);
  if (!values.length) return;
  const high = Math.min(Math.max(...values), 4) * 1.05;
  const pen = canvasPen(context);
  for (const [objective, points] of lines) {
    const line = points.flatMap(([step, value]) => [
      2 + (width - 4) * step / steps, height - 3 - (height - 6) * Math.min(value, high) / high,
    ]);
    if (line.length > 2) {
      const colour = objective === "flow" ? colours.exact : colours.field;
      pen.lines([line], 1.6, { colour, dashed: objective === "flow" });
    }
  }
}
