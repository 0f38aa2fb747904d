// A square to draw points on, with mouse, finger, pen or keys.

import { nextFrame, themeColours, themeValue } from "../shared/shared.js";
import { EDGE, readDrawing, writeDrawing } from "./points.js";

const APART = 0.12; // between two points of a stroke
const KEY_STEP = 0.1;

/** Make a pad of the elements in `box`; `changed(text)` gets the drawing after every stroke. */
export function makePad(box, most, changed) {
  const canvas = box.querySelector("canvas");
  const said = box.querySelector(".drawn");
  const brushes = [...box.querySelectorAll(".brush")];
  const pad = { points: [], strokes: [], label: 0, spot: null, pointer: null };
  const draw = nextFrame(() => paintPad(canvas, pad));
  const finish = () => {
    pad.pointer = null;
    say();
    changed(writeDrawing(pad.points));
  };
  const say = () => {
    const count = pad.points.length;
    const full = count >= most ? " That is the most." : "";
    said.textContent = count ? `${count} ${count === 1 ? "point" : "points"}.${full}` : "Draw here: click, drag, or arrow keys and Space.";
    draw();
  };
  const add = ([x, y], apart) => {
    const last = pad.points.at(-1);
    if (apart && last && Math.hypot(x - last[0], y - last[1]) < APART) return;
    if (pad.points.length < most) pad.points.push([x, y, pad.label]);
    say();
  };
  const placeOf = (event) => {
    const frame = canvas.getBoundingClientRect();
    const share = [(event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height];
    return [(2 * share[0] - 1) * EDGE, (1 - 2 * share[1]) * EDGE];
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || pad.pointer !== null) return;
    pad.pointer = event.pointerId;
    canvas.setPointerCapture(event.pointerId);
    pad.strokes.push(pad.points.length);
    add(placeOf(event), false);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pad.pointer) return;
    const all = event.getCoalescedEvents?.() ?? [];
    for (const one of all.length ? all : [event]) add(placeOf(one), true);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, (event) => event.pointerId === pad.pointer && finish());
  }
  canvas.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (way) {
      pad.spot = (pad.spot ?? [0, 0]).map((x, k) => inside(x + KEY_STEP * way[k]));
      draw();
    } else if (event.key === " ") {
      pad.strokes.push(pad.points.length);
      add((pad.spot ??= [0, 0]), false);
      finish();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  });
  canvas.addEventListener("blur", () => { pad.spot = null; draw(); });
  brushes.forEach((brush, label) => brush.addEventListener("click", () => {
    pad.label = label;
    brushes.forEach((each, k) => { each.ariaPressed = String(k === label); });
  }));
  box.querySelector(".undo").addEventListener("click", () => {
    pad.points.length = pad.strokes.pop() ?? 0;
    finish();
  });
  box.querySelector(".clear").addEventListener("click", () => {
    pad.points.length = 0;
    pad.strokes.length = 0;
    finish();
  });
  new ResizeObserver(draw).observe(canvas);
  return {
    /** Show a drawing that comes from elsewhere. */
    show(text) {
      if (text === writeDrawing(pad.points)) return;
      const { points, labels } = readDrawing(text);
      pad.points = Array.from(labels, (label, k) => [points[2 * k], points[2 * k + 1], label]);
      pad.strokes = [];
      say();
    },
    say,
  };
}

const inside = (x) => Math.max(-EDGE, Math.min(EDGE, x));

function paintPad(canvas, { points, spot }) {
  const size = canvas.clientWidth * devicePixelRatio;
  if (!size) return;
  [canvas.width, canvas.height] = [size, size];
  const context = canvas.getContext("2d");
  const colours = themeColours(canvas, "chart-categorical-colors");
  const place = (x, y) => [(x / EDGE + 1) * size / 2, (1 - y / EDGE) * size / 2];
  const radius = 0.014 * size;
  for (const [x, y, label] of points) {
    const [left, top] = place(x, y);
    context.fillStyle = colours[label];
    context.beginPath();
    if (label) context.rect(left - radius, top - radius, 2 * radius, 2 * radius);
    else context.arc(left, top, radius, 0, 2 * Math.PI);
    context.fill();
  }
  if (!spot) return;
  const [left, top] = place(...spot);
  context.strokeStyle = themeValue(canvas, "text-color");
  context.lineWidth = 2 * devicePixelRatio;
  context.strokeRect(left - 2 * radius, top - 2 * radius, 4 * radius, 4 * radius);
}
