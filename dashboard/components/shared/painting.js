// Painting on the square pixels of a canvas with mouse, finger, pen and keys.

import { nextFrame } from "./shared.js";

const MOST_UNDOS = 50;

/**
 * Let the hand paint `painting.value` into `painting.values`, one number per pixel of a square with
 * `painting.size` pixels a side. The painting has a `canvas`, an input `brush` with the brush's
 * diameter and a button `undo`. `draw(painting)` shows it; `painting.send()` is called after every
 * stroke and change.
 */
export function openPainting(painting, draw) {
  Object.assign(painting, {
    values: new Uint8Array(0),
    before: [], // earlier states, for undo
    value: 1,
    pointer: null, // the finger or mouse that makes the stroke; others are ignored
    at: null, // the last point of the stroke, [x, y] in pixels; null between strokes
    spot: null, // the brush when it is moved by keys
    show: nextFrame(() => {
      painting.undo.disabled = painting.before.length === 0;
      draw(painting);
    }),
  });
  const { canvas, undo } = painting;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || painting.at) return;
    painting.pointer = event.pointerId;
    canvas.setPointerCapture(event.pointerId);
    remember(painting);
    painting.spot = null;
    stroke(painting, place(painting, event));
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!painting.at || event.pointerId !== painting.pointer) return;
    const path = event.getCoalescedEvents?.() ?? [];
    for (const one of path.length ? path : [event]) stroke(painting, place(painting, one));
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, (event) => {
      if (painting.at && event.pointerId === painting.pointer) finish(painting);
    });
  }
  canvas.addEventListener("keydown", (event) => {
    const way = {
      ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
    }[event.key];
    const middle = (painting.size - 1) / 2;
    if (way) {
      const pace = Math.max(1, painting.brush.valueAsNumber / 2);
      const inside = (x) => Math.min(painting.size - 1, Math.max(0, x));
      painting.spot = (painting.spot ?? [middle, middle]).map((x, k) => inside(x + pace * way[k]));
      painting.show();
    } else if (event.key === " " || event.key === "Enter") {
      remember(painting);
      stroke(painting, (painting.spot ??= [middle, middle]));
      finish(painting);
    } else {
      return;
    }
    event.preventDefault();
  });
  canvas.addEventListener("blur", () => {
    painting.spot = null;
    painting.show();
  });
  undo.addEventListener("click", () => {
    painting.values = painting.before.pop() ?? painting.values;
    finish(painting);
  });
  return painting;
}

/** Start anew from `values`, of `size` pixels a side, each `shown` pixels of the canvas. */
export function setPainting(painting, values, size, shown) {
  Object.assign(painting, { values, size, before: [] });
  painting.canvas.width = painting.canvas.height = size * shown;
  painting.brush.max = Math.max(2, Math.round(size / 2));
  painting.brush.value = Math.max(1, Math.round(size / 6));
}

/** Give every pixel the number that `value` makes of it. */
export function changePainting(painting, value) {
  remember(painting);
  painting.values = painting.values.map(value);
  finish(painting);
}

/** Show the brush where keys have moved it, on a canvas with `shown` pixels per pixel. */
export function drawSpot({ spot, brush }, context, shown) {
  if (!spot) return;
  context.lineWidth = shown / 2;
  for (const [style, extra] of [["black", 0], ["white", shown / 2]]) {
    context.strokeStyle = style;
    context.beginPath();
    const radius = (brush.valueAsNumber / 2) * shown + extra;
    context.arc((spot[0] + 0.5) * shown, (spot[1] + 0.5) * shown, radius, 0, 7);
    context.stroke();
  }
}

function remember(painting) {
  painting.before.push(painting.values.slice());
  if (painting.before.length > MOST_UNDOS) painting.before.shift();
}

function finish(painting) {
  painting.at = null;
  painting.show();
  painting.send();
}

/** The pointer's position in pixels. */
function place({ canvas, size }, event) {
  const frame = canvas.getBoundingClientRect();
  const scale = size / frame.width;
  return [(event.clientX - frame.left) * scale - 0.5, (event.clientY - frame.top) * scale - 0.5];
}

/** Paint discs from the stroke's last point to `to`. */
function stroke(painting, to) {
  const from = painting.at ?? to;
  const far = Math.hypot(to[0] - from[0], to[1] - from[1]);
  const radius = painting.brush.valueAsNumber / 2;
  const dots = Math.max(1, Math.ceil(far / Math.max(0.5, radius / 2)));
  for (let k = 0; k <= dots; k += 1) {
    const [x, y] = from.map((start, axis) => start + ((to[axis] - start) * k) / dots);
    disc(painting, x, y, radius);
  }
  painting.at = to;
  painting.show();
}

function disc({ values, size, value }, x, y, radius) {
  const reach = Math.max(radius, 0.5); // always the pixel under the pointer
  for (let row = Math.ceil(y - reach); row <= y + reach; row += 1) {
    for (let column = Math.ceil(x - reach); column <= x + reach; column += 1) {
      const inside = row >= 0 && column >= 0 && row < size && column < size;
      if (inside && Math.hypot(column - x, row - y) <= reach * 1.001 + 0.2) {
        values[row * size + column] = value;
      }
    }
  }
}
