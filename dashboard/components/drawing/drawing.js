// Draw on white paper with a few colours. The server gets the number of each pixel's colour after
// every stroke and button.

import { changePainting, drawSpot, openPainting, setPainting } from "../shared/painting.js";

const SHOWN = 4; // canvas pixels per pixel of the drawing

export default function ({ data, parentElement, setStateValue }) {
  const box = parentElement.querySelector(".drawing");
  const drawing = (box.drawing ??= open(box, data));
  drawing.send = () => setStateValue("drawing", encode(drawing.values));
}

function open(box, { size, colours, drawing: given }) {
  const part = (selector) => box.querySelector(selector);
  const drawing = openPainting({
    canvas: part("canvas"),
    paper: document.createElement("canvas"), // unscaled
    brush: part(".brush"),
    undo: part(".undo"),
    clear: part(".clear"),
    colours: colours.map(({ name, hex }, number) => swatch(name, hex, number)),
  }, draw);
  drawing.paper.width = drawing.paper.height = size;
  // The first is the paper's.
  const [paper, ...pens] = drawing.colours;
  part(".pens").append(...pens.map(({ button }) => button), paper.button);
  for (const { button, number } of drawing.colours) {
    button.addEventListener("click", () => choose(drawing, number));
  }
  drawing.clear.addEventListener("click", () => changePainting(drawing, () => 0));
  setPainting(drawing, decode(given, size), size, SHOWN);
  choose(drawing, 1);
  drawing.show();
  return drawing;
}

/** A button that chooses a colour; the one of the paper erases. */
function swatch(name, hex, number) {
  const button = document.createElement("button");
  button.type = "button";
  button.title = name;
  if (number === 0) {
    button.textContent = name;
  } else {
    button.setAttribute("aria-label", name);
    button.className = "pen";
    button.style.background = hex;
  }
  return { button, number, rgb: hex.match(/[0-9a-f]{2}/g).map((value) => parseInt(value, 16)) };
}

function choose(drawing, value) {
  drawing.value = value;
  for (const { button, number } of drawing.colours) {
    button.setAttribute("aria-pressed", number === value);
  }
}

function draw(drawing) {
  const { canvas, paper, values, size, colours } = drawing;
  drawing.clear.disabled = values.every((number) => number === 0);
  const pixels = new ImageData(size, size);
  values.forEach((number, k) => pixels.data.set([...colours[number].rgb, 255], 4 * k));
  paper.getContext("2d").putImageData(pixels, 0, 0);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(paper, 0, 0, canvas.width, canvas.height);
  drawSpot(drawing, context, SHOWN);
}

/** Two pixels a byte. */
function encode(values) {
  let text = "";
  for (let k = 0; k < values.length; k += 2) {
    text += String.fromCharCode((values[k] << 4) | values[k + 1]);
  }
  return btoa(text);
}

/** What the server sends has been checked there. */
function decode(text, size) {
  const bytes = text ? atob(text) : "";
  return Uint8Array.from({ length: size * size }, (_, k) => (
    (bytes.charCodeAt(k >> 1) >> (k % 2 ? 0 : 4)) & 15
  ));
}
