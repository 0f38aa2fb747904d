// A cursor over a chart that follows the timestep without drawing the chart again: a line, and on
// each curve a dot with its value.

import { themeValue } from "../shared/shared.js";
import { followTimestep } from "../shared/timestep.js";

const SVG = "http://www.w3.org/2000/svg";
const NEAR = 14; // pixels between two values below each other
const WIDEST = 80; // pixels of a value

/** Draw the cursor over the figure in `box`; `axes` are those of t: "x", "y" or "xy". */
export function openCursor(box, axes) {
  const layer = (box.cursor ??= document.createElementNS(SVG, "svg"));
  layer.setAttribute("class", "cursor");
  layer.setAttribute("aria-hidden", "true");
  layer.style.cssText = "position:absolute;inset:0;width:100%;height:100%;pointer-events:none";
  if (!layer.isConnected) {
    box.style.position = "relative";
    box.append(layer);
    box.on("plotly_afterplot", () => box.drawCursor?.()); // zoomed, resized
  }
  box.drawCursor = () => followTimestep(layer, (t) => draw(box, axes, t));
  box.drawCursor();
}

/** Where an axis lies in the box and where a value of it does, in pixels. */
function place(axis) {
  const [start, end] = [axis._offset, axis._offset + axis._length];
  return {
    start,
    end,
    at: (value) => start + axis.c2p(value),
    isOn: (pixel) => pixel >= start - 1 && pixel <= end + 1,
  };
}

function draw(box, axes, t) {
  const [x, y] = [place(box._fullLayout.xaxis), place(box._fullLayout.yaxis)];
  const line = {
    stroke: themeValue(box, "gray-text-color"),
    "stroke-dasharray": "2 3",
    "stroke-width": 1.5,
  };
  const parts = [];
  if (axes.includes("x") && x.isOn(x.at(t))) {
    parts.push(part("line", { x1: x.at(t), x2: x.at(t), y1: y.start, y2: y.end, ...line }));
    if (axes === "x") parts.push(...dots(box, t, x, y));
  }
  if (axes.includes("y") && y.isOn(y.at(t))) {
    parts.push(part("line", { x1: x.start, x2: x.end, y1: y.at(t), y2: y.at(t), ...line }));
  }
  box.cursor.replaceChildren(...parts);
}

/** On each curve its dot, and beside it the value. */
function dots(box, t, x, y) {
  const found = box.calcdata.flatMap((points) => {
    const { visible, line } = points[0]?.trace ?? {};
    const value = visible === true && valueAt(points, t);
    const at = value ? y.at(value.y) : NaN;
    return y.isOn(at) ? [{ ...value, at, colour: line?.color }] : [];
  });
  found.sort((one, other) => one.at - other.at);
  let room = y.start; // values close to each other make way, first down and then up
  for (const each of found) room = (each.middle = Math.max(each.at, room)) + NEAR;
  room = y.end - NEAR / 2;
  for (const each of found.toReversed()) {
    room = (each.middle = Math.min(each.middle, room)) - NEAR;
  }
  const isLeft = x.at(t) > x.end - WIDEST;
  return found.flatMap(({ y: value, at, middle, colour, isExact }) => {
    const words = part("text", {
      x: x.at(t) + (isLeft ? -8 : 8),
      y: middle + 4,
      "text-anchor": isLeft ? "end" : "start",
      "font-size": 12,
      fill: themeValue(box, "text-color"),
      stroke: themeValue(box, "background-color"),
      "stroke-width": 3,
      "paint-order": "stroke",
    });
    words.textContent = `${isExact ? "" : "≈ "}${Number(value.toPrecision(4))}`.replace("-", "−");
    return [part("circle", { cx: x.at(t), cy: at, r: 4, fill: colour }), words];
  });
}

/** A curve's value at t, on the line between its points where it has none there. */
function valueAt(points, t) {
  const after = points.findIndex((point) => point.x >= t);
  if (after < 0) return undefined;
  const [one, other] = [points[after - 1], points[after]];
  if (other.x === t) return { y: other.y, isExact: true };
  return one && { y: one.y + ((other.y - one.y) * (t - one.x)) / (other.x - one.x), isExact: false };
}

function part(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
