// What a run predicts from an image with noise, for the timestep of the page.

import { openEngine } from "../engine/client.js";
import { nextFrame } from "../shared/shared.js";
import { followTimestep } from "../shared/timestep.js";

export default function ({ data, parentElement }) {
  const box = parentElement.querySelector(".predictor");
  const view = (box.view ??= open(box));
  update(view, data);
  return () => {
    view.worker?.terminate();
    view.closed = true;
  };
}

function open(box) {
  const view = { box, part: (selector) => box.querySelector(selector), turn: 0, t: 0, shown: 0 };
  view.ask = nextFrame(() => view.closed || ask(view));
  followTimestep(box, (t) => {
    view.t = t;
    view.ask();
  });
  return view;
}

function update(view, data) {
  const old = view.data;
  view.data = data;
  if (old?.address !== data.address) {
    view.worker?.terminate();
    view.worker = openEngine({ script: data.worker, address: data.address, engine: "fastest" }, (message) => (
      hear(view, message)
    ));
  }
  if (old?.pixels !== data.pixels) {
    const bytes = Uint8Array.from(atob(data.pixels), (character) => character.charCodeAt(0));
    view.from = Float32Array.from(bytes, (value) => value / 127.5 - 1);
    for (const canvas of view.box.querySelectorAll("canvas")) canvas.width = canvas.height = data.size;
  }
  view.ask();
}

function ask(view) {
  view.turn += 1;
  const { turn, from, data: { asked, timesteps } } = view;
  const t = Math.min(view.t, timesteps - 1); // while the slider still is another model's
  view.worker?.postMessage({ ask: { ...asked, from, t, turn } }, []);
  view.asked = { turn, t };
}

function hear(view, { turn, step, failed }) {
  const { part, data: { size }, asked } = view;
  if (failed) part(".said").textContent = failed;
  if (!step || turn < view.shown) return;
  view.shown = turn;
  for (const [name, pixels] of [["noisy", step.noisy], ["predicted", step.image]]) {
    part(`.${name}`).getContext("2d").putImageData(new ImageData(pixels, size, size), 0, 0);
  }
  if (turn !== asked.turn) return;
  part(".said").textContent = "";
  view.box.dataset.t = asked.t; // of what is on the canvases
  part(".predicted").ariaLabel = `The image that is predicted at t = ${asked.t}`;
}
