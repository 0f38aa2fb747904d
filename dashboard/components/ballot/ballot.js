// Images side by side of which one is chosen: by its number on the keyboard, a click or a finger.

import { loadImage } from "../shared/shared.js";

const BACK = -1;
const SKIP = -2;

export default function ({ data, parentElement, setTriggerValue }) {
  const box = parentElement.querySelector(".ballot");
  if (box.question !== data.question) {
    box.question = data.question;
    box.answered = false;
    showImages(box.querySelector(".images"), data.images, (place) => answer(place));
  }
  const buttons = [...box.querySelectorAll(".image")];
  buttons.forEach((button, place) => { button.ariaPressed = String(place === data.chosen); });
  box.querySelector(".back").disabled = !data.back;
  box.querySelector(".back").onclick = () => answer(BACK);
  box.querySelector(".skip").onclick = () => answer(SKIP);

  /** Only the first answer counts: the next question comes after a moment. */
  function answer(place) {
    if (box.answered || (place === BACK && !data.back)) return;
    box.answered = true;
    buttons[place]?.setAttribute("aria-pressed", "true");
    setTriggerValue("answer", { question: data.question, place });
  }

  function press(event) {
    const from = event.composedPath()[0];
    const types = from.matches?.("input, textarea, select, [contenteditable=true]");
    if (types || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const place = placeOf(event.key, buttons.length);
    if (place === undefined) return;
    event.preventDefault();
    answer(place);
  }

  document.addEventListener("keydown", press);
  return () => document.removeEventListener("keydown", press);
}

function placeOf(key, count) {
  const number = Number(key);
  if (/^[1-9]$/.test(key) && number <= count) return number - 1;
  const sides = count === 2 ? { ArrowLeft: 0, ArrowRight: 1 } : {};
  return { Backspace: BACK, s: SKIP, ...sides }[key];
}

function showImages(list, addresses, choose) {
  list.ariaLabel = "Images to choose from";
  list.dataset.count = addresses.length;
  list.replaceChildren(...addresses.map((address, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "image";
    button.ariaLabel = `Choose image ${place + 1}`;
    button.innerHTML = "<b></b>";
    button.querySelector("b").textContent = place + 1;
    button.addEventListener("click", () => choose(place));
    loadImage(address, (image) => button.prepend(image));
    return button;
  }));
}
