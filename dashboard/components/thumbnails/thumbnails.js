// A row of small images with a few words each. The server hears which one was pressed.

import { loadImage } from "../shared/shared.js";

export default function ({ data, parentElement, setTriggerValue }) {
  const box = parentElement.querySelector(".thumbnails");
  const focused = box.getRootNode().activeElement?.dataset.number;
  box.ariaLabel = data.label;
  const buttons = data.thumbnails.map((one) => makeButton(one, one.number === data.chosen));
  for (const button of buttons) {
    button.addEventListener("click", () => setTriggerValue("picked", Number(button.dataset.number)));
  }
  box.replaceChildren(...buttons);
  buttons.find((button) => button.dataset.number === focused)?.focus();
}

function makeButton({ number, address, title, text, full }, isChosen) {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.number = number;
  button.ariaPressed = String(isChosen);
  button.ariaLabel = `${title}: ${full}`;
  button.title = full;
  button.innerHTML = "<div><b></b><span></span></div>";
  button.querySelector("b").textContent = title;
  button.querySelector("span").textContent = text;
  loadImage(address, (image) => button.prepend(image));
  return button;
}
