// Points in the plane, as diffusion_core/playground/data.py and drawing.py make them. Points are
// x and y in turns.

import { normals, uniformsOf } from "./random.js";

const COUNT = 512; // points of a shape
export const EDGE = 2.5; // a drawing reaches from -EDGE to EDGE
const LEVELS = 4095; // of each coordinate of a drawing

/** One of the shapes: points, and their classes, 0 and 1 in turns. */
export function makeShape(name, seed) {
  const uniform = uniformsOf(seed, "data");
  const shares = Float64Array.from({ length: COUNT }, uniform);
  const blur = normals(uniform, COUNT);
  const labels = Int8Array.from({ length: COUNT }, (_, k) => k % 2);
  const points = new Float64Array(2 * COUNT);
  for (let k = 0; k < COUNT; k++) {
    const sign = 1 - 2 * labels[k];
    let x, y, width;
    if (name === "two moons") {
      const angle = Math.PI * shares[k];
      x = 1.3 * (sign * Math.cos(angle) - 0.5 * sign);
      y = 1.3 * (sign * Math.sin(angle) - 0.25 * sign);
      width = 0.08;
    } else {
      const root = Math.sqrt(shares[k]);
      const spiral = name === "spiral";
      const angle = spiral ? 3 * Math.PI * root : 2 * Math.PI * shares[k];
      const radius = spiral ? 2 * sign * root : 0.7 + labels[k];
      x = radius * Math.cos(angle);
      y = radius * Math.sin(angle);
      width = 0.06;
    }
    points[2 * k] = x + width * blur[2 * k];
    points[2 * k + 1] = y + width * blur[2 * k + 1];
  }
  return { points, labels };
}

/** The points and classes of a drawing's text. */
export function readDrawing(text) {
  const bytes = Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
  const count = bytes.length / 4;
  const view = new DataView(bytes.buffer);
  const points = new Float64Array(2 * count);
  const labels = new Int8Array(count);
  for (let k = 0; k < count; k++) {
    const word = view.getUint32(4 * k);
    points[2 * k] = (2 * ((word >>> 12) & LEVELS) / LEVELS - 1) * EDGE;
    points[2 * k + 1] = (2 * (word & LEVELS) / LEVELS - 1) * EDGE;
    labels[k] = word >>> 31;
  }
  return { points, labels };
}

const rounded = (x) => Math.round((Math.max(-1, Math.min(1, x / EDGE)) + 1) / 2 * LEVELS);

/** The text of a drawing of [x, y, class]. */
export function writeDrawing(drawn) {
  const view = new DataView(new ArrayBuffer(4 * drawn.length));
  drawn.forEach(([x, y, label], k) => {
    view.setUint32(4 * k, ((label << 31) | (rounded(x) << 12) | rounded(y)) >>> 0);
  });
  const text = btoa(String.fromCharCode(...new Uint8Array(view.buffer)));
  return text.replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

/** The numbers of a base64 text of float64. */
export function float64s(text) {
  return new Float64Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
}
