// A cursor on an image and on maps of the same place. The server gets the pixel when it rests.

import { loadImage, nextFrame, themeColours } from "../shared/shared.js";

const SIDE = 512; // canvas pixels
const REST_MS = 250; // after the last key
const DIGITS = 3;
const DASHES = [[], [12, 8]]; // of the squares, from the inner one

export default function ({ data, parentElement, setStateValue }) {
  const box = parentElement.querySelector(".pixel");
  const view = (box.view ??= { box, count: data.count, panels: [] });
  view.show ??= nextFrame(() => draw(view));
  view.tell = () => {
    clearTimeout(view.rest);
    view.moved = false;
    view.count += 1;
    setStateValue("told", { row: view.at[0], column: view.at[1], count: view.count });
  };
  // What the hand has moved and not told yet is newer than any answer.
  if (!view.at || (data.count >= view.count && !view.moved)) {
    view.count = data.count;
    view.at = data.at;
  }
  view.size = data.size;
  view.told = data.at; // the pixel that the maps are about
  fill(view, data.panels);
  view.show();
}

/** A figure for each panel; those that are there stay, with the focus and the pointer. */
function fill(view, given) {
  while (view.panels.length > given.length) view.panels.pop().figure.remove();
  given.forEach((each, k) => {
    const panel = (view.panels[k] ??= open(view, k));
    panel.caption.textContent = each.title;
    panel.given = each;
    if (each.image && panel.address !== each.image) {
      panel.address = each.image;
      loadImage(each.image, (image) => {
        if (panel.address !== each.image) return;
        panel.picture = image;
        view.show();
      });
    } else if (each.map) {
      panel.address = undefined;
      panel.picture = picture(view.box, each);
    }
  });
}

function open(view, k) {
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  figure.append(caption, canvas);
  view.box.querySelector(".panels").append(figure);
  let dragged = null;
  const move = (event) => {
    view.moved = true;
    const frame = canvas.getBoundingClientRect();
    const inside = (share) => (
      Math.min(view.size - 1, Math.max(0, Math.floor(share * view.size)))
    );
    view.at = [
      inside((event.clientY - frame.top) / frame.height),
      inside((event.clientX - frame.left) / frame.width),
    ];
    view.show();
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    dragged = event.pointerId;
    canvas.setPointerCapture(event.pointerId);
    move(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId === dragged) move(event);
  });
  canvas.addEventListener("pointerup", (event) => {
    if (event.pointerId !== dragged) return;
    dragged = null;
    view.tell();
  });
  canvas.addEventListener("pointercancel", () => { dragged = null; });
  canvas.setAttribute("role", k ? "img" : "application");
  if (!k) {
    canvas.tabIndex = 0;
    canvas.addEventListener("keydown", (event) => {
      const way = {
        ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0],
      }[event.key];
      if (!way) return;
      event.preventDefault();
      view.moved = true;
      const pace = event.shiftKey ? 8 : 1;
      view.at = view.at.map((x, axis) => (
        Math.min(view.size - 1, Math.max(0, x + pace * way[axis]))
      ));
      view.show();
      clearTimeout(view.rest);
      view.rest = setTimeout(view.tell, REST_MS);
    });
  }
  return { figure, caption, canvas };
}

/** The values of a map in the theme's colours, one canvas pixel each. */
function picture(box, { map, height, width }) {
  const paint = document.createElement("canvas").getContext("2d");
  const colours = themeColours(box, "chart-sequential-colors").map((colour) => {
    paint.fillStyle = colour; // reading it gives #rrggbb
    return paint.fillStyle.match(/[0-9a-f]{2}/g).map((part) => parseInt(part, 16));
  });
  const found = document.createElement("canvas");
  [found.width, found.height] = [width, height];
  const pixels = new ImageData(width, height);
  Array.from(atob(map), (letter) => letter.charCodeAt(0)).forEach((value, k) => {
    const place = (value / 255) * (colours.length - 1);
    const low = Math.floor(place);
    const high = Math.min(colours.length - 1, low + 1);
    const mixed = colours[low].map((part, at) => part + (place - low) * (colours[high][at] - part));
    pixels.data.set([...mixed, 255], 4 * k);
  });
  found.getContext("2d").putImageData(pixels, 0, 0);
  return found;
}

/** Squares around the pixel that the maps are about, each with dashes of its own. */
function drawFrames(context, frames, { at: [row, column] }, side) {
  frames.forEach((distance, k) => {
    const across = (2 * distance + 1) * side;
    for (const [style, wide] of [["black", 4], ["white", 2]]) {
      context.strokeStyle = style;
      context.lineWidth = wide;
      context.setLineDash(DASHES[k % DASHES.length]);
      context.strokeRect((column - distance) * side, (row - distance) * side, across, across);
    }
  });
  context.setLineDash([]);
}

function draw(view) {
  const { at: [row, column], told, size, panels } = view;
  for (const { canvas, given, picture: shown } of panels) {
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.clearRect(0, 0, SIDE, SIDE);
    if (shown) context.drawImage(shown, 0, 0, SIDE, SIDE);
    const side = SIDE / size;
    const around = [column * side, row * side, side, side];
    for (const [style, wide] of [["black", 5], ["white", 2]]) {
      context.strokeStyle = style;
      context.lineWidth = wide;
      context.strokeRect(...around);
      context.beginPath();
      const [x, y] = [(column + 0.5) * side, (row + 0.5) * side];
      for (const [from, to] of [[-26, -side / 2 - 6], [side / 2 + 6, 26]]) {
        context.moveTo(x + from, y);
        context.lineTo(x + to, y);
        context.moveTo(x, y + from);
        context.lineTo(x, y + to);
      }
      context.stroke();
    }
    if (row === told[0] && column === told[1]) drawFrames(context, given.frames, view, side);
    const most = given.map ? `, at most ${given.peak.toPrecision(DIGITS)}` : "";
    canvas.setAttribute("aria-label", given.title + most);
  }
  const words = `Pixel in row ${row}, column ${column}.`;
  const said = view.box.querySelector(".said");
  if (said.textContent !== words) said.textContent = words;
  panels[0]?.canvas.setAttribute(
    "aria-label",
    `${panels[0].given.title}. ${words} Arrow keys move the pixel, with Shift by 8.`,
  );
}
