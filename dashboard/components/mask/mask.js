// Paint a mask on an image: 1 is painted. The server gets one bit per pixel after every stroke and
// button.

import { changePainting, drawSpot, openPainting, setPainting } from "../shared/painting.js";
import { loadImage, themeValue } from "../shared/shared.js";

const LINES = 6; // image pixels from one white line over the mask to the next
const OPACITY = 166; // of 255
const SHOWN = 8; // canvas pixels per image pixel

export default function ({ data, parentElement, setStateValue }) {
  const box = parentElement.querySelector(".mask");
  const mask = (box.mask ??= open(box));
  mask.send = () => setStateValue("mask", encode(mask.values));
  update(mask, data);
}

function open(box) {
  const part = (selector) => box.querySelector(selector);
  const buttons = Object.fromEntries(
    ["paint", "erase", "invert", "clear"].map((name) => [name, part(`.${name}`)]),
  );
  const mask = openPainting({
    box,
    canvas: part("canvas"),
    cover: document.createElement("canvas"), // the painted pixels, unscaled
    said: part(".said"),
    brush: part(".brush"),
    undo: part(".undo"),
    buttons,
  }, draw);
  buttons.paint.addEventListener("click", () => choose(mask, 1));
  buttons.erase.addEventListener("click", () => choose(mask, 0));
  buttons.invert.addEventListener("click", () => changePainting(mask, (bit) => 1 - bit));
  buttons.clear.addEventListener("click", () => changePainting(mask, () => 0));
  return mask;
}

function update(mask, { image: address, size, mask: given }) {
  if (mask.size !== size) setPainting(mask, decode(given, size), size, SHOWN);
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

function draw(mask) {
  const { canvas, values: bits, size, image } = mask;
  const count = bits.reduce((sum, bit) => sum + bit, 0);
  const share = Math.round((100 * count) / (size * size));
  const words = count
    ? `${share < 1 ? "Less than 1" : share} % is painted and will be repainted.`
    : "Paint over the area to repaint.";
  if (mask.said.textContent !== words) mask.said.textContent = words;
  canvas.setAttribute("aria-label", `The image. ${words} Arrow keys move the brush, space paints.`);
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
  drawSpot(mask, context, SHOWN);
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
