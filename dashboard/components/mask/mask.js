// Paint a mask on an image: 1 is painted. The server gets one bit per pixel after every stroke and
// button.

import { loadImage, nextFrame, themeValue } from "../shared/shared.js";

const MOST_UNDOS = 50;
const LINES = 6; // image pixels from one white line over the mask to the next
const OPACITY = 166; // of 255
const SHOWN = 8; // canvas pixels per image pixel

export default function ({ data, parentElement, setStateValue }) {
  const box = parentElement.querySelector(".mask");
  const mask = (box.mask ??= open(box));
  mask.send = () => setStateValue("mask", encode(mask.bits));
  update(mask, data);
}

function open(box) {
  const part = (selector) => box.querySelector(selector);
  const mask = {
    box,
    canvas: part("canvas"),
    cover: document.createElement("canvas"), // the painted pixels, unscaled
    said: part(".said"),
    brush: part(".brush"),
    buttons: Object.fromEntries(
      ["paint", "erase", "undo", "invert", "clear"].map((name) => [name, part(`.${name}`)]),
    ),
    bits: new Uint8Array(0),
    before: [], // earlier states, for undo
    value: 1, // 1: the brush paints, 0: it erases
    pointer: null, // the finger or mouse that makes the stroke; others are ignored
    at: null, // the last point of the stroke, [x, y] in image pixels; null between strokes
    spot: null, // the brush when it is moved by keys
  };
  mask.show = nextFrame(() => draw(mask));
  const { canvas, buttons } = mask;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || mask.at) return;
    mask.pointer = event.pointerId;
    canvas.setPointerCapture(event.pointerId);
    remember(mask);
    mask.spot = null;
    stroke(mask, place(mask, event));
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!mask.at || event.pointerId !== mask.pointer) return;
    const path = event.getCoalescedEvents?.() ?? [];
    for (const one of path.length ? path : [event]) stroke(mask, place(mask, one));
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, (event) => {
      if (mask.at && event.pointerId === mask.pointer) finish(mask);
    });
  }
  canvas.addEventListener("keydown", (event) => {
    const way = {
      ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
    }[event.key];
    const middle = (mask.size - 1) / 2;
    if (way) {
      const pace = Math.max(1, mask.brush.valueAsNumber / 2);
      const inside = (x) => Math.min(mask.size - 1, Math.max(0, x));
      mask.spot = (mask.spot ?? [middle, middle]).map((x, k) => inside(x + pace * way[k]));
      mask.show();
    } else if (event.key === " " || event.key === "Enter") {
      remember(mask);
      stroke(mask, (mask.spot ??= [middle, middle]));
      finish(mask);
    } else {
      return;
    }
    event.preventDefault();
  });
  canvas.addEventListener("blur", () => {
    mask.spot = null;
    mask.show();
  });
  buttons.paint.addEventListener("click", () => choose(mask, 1));
  buttons.erase.addEventListener("click", () => choose(mask, 0));
  buttons.undo.addEventListener("click", () => {
    mask.bits = mask.before.pop() ?? mask.bits;
    finish(mask);
  });
  buttons.invert.addEventListener("click", () => change(mask, (bit) => 1 - bit));
  buttons.clear.addEventListener("click", () => change(mask, () => 0));
  return mask;
}

function update(mask, { image: address, size, mask: given }) {
  if (mask.size !== size) {
    mask.size = size;
    mask.bits = decode(given, size);
    mask.before = [];
    mask.canvas.width = mask.canvas.height = size * SHOWN;
    mask.brush.max = Math.max(2, Math.round(size / 2));
    mask.brush.value = Math.max(1, Math.round(size / 6));
  }
  if (mask.source !== address) {
    mask.source = address;
    loadImage(address, (image) => {
      if (mask.source !== address) return;
      mask.image = image;
      mask.show();
    });
  }
  mask.show();
}

function choose(mask, value) {
  mask.value = value;
  mask.buttons.paint.setAttribute("aria-pressed", value === 1);
  mask.buttons.erase.setAttribute("aria-pressed", value === 0);
}

function remember(mask) {
  mask.before.push(mask.bits.slice());
  if (mask.before.length > MOST_UNDOS) mask.before.shift();
}

function change(mask, value) {
  remember(mask);
  mask.bits = mask.bits.map(value);
  finish(mask);
}

function finish(mask) {
  mask.at = null;
  mask.show();
  mask.send();
}

/** The pointer's position in image pixels. */
function place({ canvas, size }, event) {
  const frame = canvas.getBoundingClientRect();
  const scale = size / frame.width;
  return [(event.clientX - frame.left) * scale - 0.5, (event.clientY - frame.top) * scale - 0.5];
}

/** Paint discs from the stroke's last point to `to`. */
function stroke(mask, to) {
  const from = mask.at ?? to;
  const far = Math.hypot(to[0] - from[0], to[1] - from[1]);
  const radius = mask.brush.valueAsNumber / 2;
  const dots = Math.max(1, Math.ceil(far / Math.max(0.5, radius / 2)));
  for (let k = 0; k <= dots; k += 1) {
    const [x, y] = from.map((start, axis) => start + ((to[axis] - start) * k) / dots);
    disc(mask, x, y, radius);
  }
  mask.at = to;
  mask.show();
}

function disc({ bits, size, value }, x, y, radius) {
  const reach = Math.max(radius, 0.5); // always the pixel under the pointer
  for (let row = Math.ceil(y - reach); row <= y + reach; row += 1) {
    for (let column = Math.ceil(x - reach); column <= x + reach; column += 1) {
      const inside = row >= 0 && column >= 0 && row < size && column < size;
      if (inside && Math.hypot(column - x, row - y) <= reach * 1.001 + 0.2) {
        bits[row * size + column] = value;
      }
    }
  }
}

function draw(mask) {
  const { canvas, bits, size, image } = mask;
  const count = bits.reduce((sum, bit) => sum + bit, 0);
  const share = Math.round((100 * count) / (size * size));
  const words = count
    ? `${share < 1 ? "Less than 1" : share} % is painted and will be repainted.`
    : "Paint over the area to repaint.";
  if (mask.said.textContent !== words) mask.said.textContent = words;
  canvas.setAttribute("aria-label", `The image. ${words} Arrow keys move the brush, space paints.`);
  mask.buttons.undo.disabled = mask.before.length === 0;
  mask.buttons.clear.disabled = count === 0;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (image) context.drawImage(image, 0, 0, canvas.width, canvas.height);
  // Reading fillStyle gives #rrggbb, however the theme writes the colour.
  context.fillStyle = themeValue(mask.box, "primary-color");
  const colour = context.fillStyle.match(/[0-9a-f]{2}/g).map((part) => parseInt(part, 16));
  const cover = new ImageData(size, size);
  bits.forEach((bit, k) => {
    if (!bit) return;
    // White lines keep the mask visible on an image of any colour.
    const line = ((k % size) + Math.floor(k / size)) % LINES === 0;
    cover.data.set([...(line ? [255, 255, 255] : colour), OPACITY], 4 * k);
  });
  mask.cover.width = mask.cover.height = size;
  mask.cover.getContext("2d").putImageData(cover, 0, 0);
  context.drawImage(mask.cover, 0, 0, canvas.width, canvas.height);
  if (mask.spot) {
    context.lineWidth = SHOWN / 2;
    for (const [style, extra] of [["black", 0], ["white", SHOWN / 2]]) {
      context.strokeStyle = style;
      context.beginPath();
      const radius = (mask.brush.valueAsNumber / 2) * SHOWN + extra;
      context.arc((mask.spot[0] + 0.5) * SHOWN, (mask.spot[1] + 0.5) * SHOWN, radius, 0, 7);
      context.stroke();
    }
  }
}

function encode(bits) {
  const bytes = new Uint8Array(Math.ceil(bits.length / 8));
  bits.forEach((bit, k) => { bytes[k >> 3] |= bit << (7 - (k & 7)); });
  let text = "";
  bytes.forEach((byte) => { text += String.fromCharCode(byte); });
  return btoa(text);
}

function decode(text, size) {
  const bits = new Uint8Array(size * size);
  const bytes = text ? atob(text) : "";
  if (bytes.length !== Math.ceil(bits.length / 8)) return bits;
  return bits.map((_, k) => (bytes.charCodeAt(k >> 3) >> (7 - (k & 7))) & 1);
}
