// An image that the server samples again while the hand moves its settings: one request at a time,
// the newest settings next. When the hand rests, the server is told to keep them.

import { formatNumber, nextFrame } from "../shared/shared.js";

const REST_MS = 700;
const WAIT_MS = 300; // until it is asked again for an image that is still being made
const LATE_MS = 4000; // after which it is asked again where there is no answer

export default function ({ data, parentElement, setStateValue }) {
  const box = parentElement.querySelector(".immediate");
  const view = (box.view ??= open(box, data));
  view.tell = (asked) => setStateValue("asked", asked);
  update(view, data);
  return () => {
    clearTimeout(view.rest);
    clearTimeout(view.again);
    view.closed = true;
  };
}

function open(box, { turn }) {
  const part = (selector) => box.querySelector(selector);
  const view = {
    box, part, settings: {}, inputs: [...box.querySelectorAll("[name]")],
    turn, // of the newest request
    waits: false, // for its answer
    sent: "", // what it was for: see `textOf`
    base: "", // and on what
    rest: undefined, // set while the hand is ahead of the server
  };
  view.ask = nextFrame(() => view.closed || ask(view));
  for (const input of view.inputs) {
    input.addEventListener("input", () => {
      view.settings = { ...view.settings, [input.name]: valueOf(view, input) };
      display(view, input.name);
      view.ask();
      clearTimeout(view.rest);
      view.rest = setTimeout(() => rest(view), REST_MS);
    });
  }
  return view;
}

function update(view, data) {
  const { part } = view;
  const waited = view.waits;
  const late = waited && data.turn < view.turn;
  view.data = data;
  // The page has changed on the way: what the hand has set is asked for again.
  const overtaken = waited && data.base !== view.base
    && Object.keys(data.settings).some((name) => data.settings[name] !== view.settings[name]);
  if (view.rest === undefined && !late && !overtaken) {
    view.settings = { ...data.settings };
    view.sent = textOf(view);
  }
  part("[name=seed]").max = data.seeds - 1;
  part("[name=label]").max = Math.max(0, data.classes.length - 1);
  part(".with-classes").hidden = data.classes.length < 2;
  part(".with-guidance").hidden = !data.guidance;
  Object.assign(part("[name=guidance]"), data.guidance ?? {});
  display(view);
  part(".said").textContent = data.said;
  if (data.png !== null) paint(view, data);
  if (late) return; // its answer comes
  view.waits = false;
  clearTimeout(view.again);
  if (overtaken && view.rest === undefined) send(view, true);
  else if (data.waits) view.again = setTimeout(() => send(view, false), WAIT_MS);
  else view.ask();
}

/** Show the image as soon as it is decoded. */
async function paint(view, { png, alt, settings, file }) {
  const image = view.part("img");
  const address = `data:image/png;base64,${png}`;
  const download = view.part(".download");
  [download.href, download.download] = [address, file];
  image.alt = alt;
  if (image.src !== address) image.src = address;
  try {
    await image.decode();
  } catch {
    return; // a newer one has taken its place
  }
  view.box.dataset.shown = JSON.stringify(settings); // of what is on the screen
}

function valueOf(view, input) {
  const value = Number(input.value);
  return input.name === "label" ? view.data.classes[value] : value;
}

/** Show the settings; the input called `but` has its own already. */
function display(view, but = "") {
  const { settings, inputs, data } = view;
  const texts = {
    seed: formatNumber(settings.seed), label: settings.label, guidance: String(settings.guidance),
  };
  for (const input of inputs) {
    const { name } = input;
    if (name !== but) input.value = name === "label" ? data.classes.indexOf(settings.label) : settings[name];
    input.parentElement.querySelector("output").textContent = texts[name];
    if (name === "label") input.ariaValueText = texts.label;
  }
}

/** What is asked for. It is compared with what was, not with what the answer has: the server may
 * leave something out. */
function textOf({ settings, data }) {
  return JSON.stringify([settings, data.base]);
}

/** Ask for the present settings, unless that was done or an answer is on its way. */
function ask(view) {
  if (!view.waits && view.sent !== textOf(view)) send(view, false);
}

function send(view, rests) {
  view.turn += 1;
  view.waits = true;
  view.sent = textOf(view);
  view.base = view.data.base;
  clearTimeout(view.again);
  view.again = setTimeout(() => send(view, rests), LATE_MS);
  view.tell({ ...view.settings, base: view.data.base, turn: view.turn, rests });
}

/** The hand rests: the page's other controls follow. */
function rest(view) {
  view.rest = undefined;
  send(view, true);
}
