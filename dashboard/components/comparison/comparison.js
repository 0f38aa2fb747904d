// A table with a column for each of a few things that are compared. What a line means is said beside
// its name: on the pointer, on the keyboard's focus, and on a tap.

import { themeColours } from "../shared/shared.js";

export default function ({ data, parentElement }) {
  const box = parentElement.querySelector(".comparison");
  box.ariaLabel = data.label;
  const about = parentElement.querySelector(".about");
  const table = box.querySelector("table");
  const colours = themeColours(box, "chart-categorical-colors");
  table.replaceChildren(
    makeHead(data, colours),
    ...data.parts.map((part) => makePart(part, data.names.length, about)),
  );
}

function make(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function makeHead({ names, corner }, colours) {
  const head = document.createElement("thead");
  const row = head.insertRow();
  row.append(make("th", corner, { scope: "col" }));
  names.forEach((name, k) => {
    const cell = make("th", name, { scope: "col", title: name });
    cell.style.borderTopColor = colours[k % colours.length];
    row.append(cell);
  });
  return head;
}

function makePart({ title, lines }, count, about) {
  const part = document.createElement("tbody");
  const head = part.insertRow();
  head.className = "title";
  head.append(make("th", title, { scope: "rowgroup", colspan: count + 1 }));
  for (const { name, text, cells, marked } of lines) {
    const row = part.insertRow();
    const first = make("th", "", { scope: "row" });
    first.append(text ? makeTerm(name, text, about) : name);
    row.append(first);
    row.append(...cells.map((cell, k) => make("td", cell, marked[k] ? { class: "marked" } : {})));
  }
  return part;
}

/** A name that says what it means: on the pointer, on the keyboard's focus, on a tap. */
function makeTerm(name, text, about) {
  const term = make("button", name, { type: "button", "aria-description": text });
  const show = () => {
    about.textContent = text;
    about.hidden = false;
    // Fixed, since the table scrolls and would cut it; inside the window.
    const place = term.getBoundingClientRect();
    const left = Math.min(place.left, window.innerWidth - about.offsetWidth - 8);
    const below = place.bottom + 4;
    const fits = below + about.offsetHeight < window.innerHeight;
    about.style.left = `${Math.max(8, left)}px`;
    about.style.top = `${fits ? below : place.top - about.offsetHeight - 4}px`;
  };
  const hide = () => { about.hidden = true; };
  for (const event of ["pointerenter", "focus", "click"]) term.addEventListener(event, show);
  for (const event of ["pointerleave", "blur"]) term.addEventListener(event, hide);
  term.addEventListener("keydown", (event) => event.key === "Escape" && hide());
  return term;
}
