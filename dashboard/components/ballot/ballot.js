// Images side by side of which one is chosen: by its number on the keyboard, a click or a finger.

import { loadImage } from "../shared/shared.js";

const BACK = -1;
const SKIP = -2;

export default function ({ data, parentElement, setTriggerValue }) {
  const box = parentElement.querySelector(".ballot");
  const ballot = (box.ballot ??= open(box));
  ballot.send = (place) => setTriggerValue("answer", { question: data.question, place });
  ballot.canGoBack = data.back;
  if (ballot.question !== data.question) ask(ballot, data);
  return () => document.removeEventListener("keydown", ballot.press);
}

function open(box) {
  const part = (selector) => box.querySelector(selector);
  const ballot = {
    list: part(".images"),
    where: part("span"),
    progress: part("progress"),
    back: part(".back"),
    buttons: [],
    press: (event) => press(ballot, event),
  };
  ballot.back.addEventListener("click", () => answer(ballot, BACK));
  part(".skip").addEventListener("click", () => answer(ballot, SKIP));
  document.addEventListener("keydown", ballot.press);
  return ballot;
}

function ask(ballot, { question, images, at: [number, total], chosen, back }) {
  ballot.question = question;
  ballot.answered = false;
  const which = images.length === 2 ? "better" : "the best";
  ballot.where.textContent = `${number} of ${total}: which image is ${which}?`;
  Object.assign(ballot.progress, { value: number, max: total });
  ballot.back.disabled = !back;
  ballot.buttons = images.map((address, place) => makeButton(ballot, address, place));
  ballot.buttons[chosen]?.setAttribute("aria-pressed", "true");
  ballot.list.dataset.count = images.length;
  ballot.list.replaceChildren(...ballot.buttons);
}

function makeButton(ballot, address, place) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "image";
  button.ariaLabel = `Choose image ${place + 1}`;
  button.ariaPressed = "false";
  button.innerHTML = "<b></b>";
  button.querySelector("b").textContent = place + 1;
  button.addEventListener("click", () => answer(ballot, place));
  loadImage(address, (image) => {
    image.alt = ""; // the button says its number, and nothing else may be said
    button.prepend(image);
  });
  return button;
}

/** Only the first answer counts: the next question comes after a moment. */
function answer(ballot, place) {
  if (ballot.answered || (place === BACK && !ballot.canGoBack)) return;
  ballot.answered = true;
  ballot.buttons.forEach((button, k) => { button.ariaPressed = String(k === place); });
  ballot.send(place);
}

function press(ballot, event) {
  const from = event.composedPath()[0];
  const types = from.matches?.("input, textarea, select, [contenteditable=true]");
  if (types || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const place = placeOf(event.key, ballot.buttons.length);
  if (place === undefined) return;
  event.preventDefault();
  answer(ballot, place);
}

function placeOf(key, count) {
  const number = Number(key);
  if (/^[1-9]$/.test(key) && number <= count) return number - 1;
  const sides = count === 2 ? { ArrowLeft: 0, ArrowRight: 1 } : {};
  return { Backspace: BACK, s: SKIP, S: SKIP, ...sides }[key];
}
