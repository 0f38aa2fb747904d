// Notifications of the browser when something has ended, while the page is open in a tab. The server
// hears which names the visitor waits for, and says of each what has become of it.

import { nextFrame } from "../shared/shared.js";

const KEPT = "diffusion-lab-notify"; // in the storage of the tab: the names, as JSON
const CONFIRMED = 5000; // milliseconds for which the first notification is shown

export default function ({ data, parentElement, setStateValue }) {
  const box = parentElement.querySelector(".notify");
  const view = (box.view ??= open(box));
  view.data = data;
  view.send = () => setStateValue("names", view.names);
  // After the page was loaded again the server does not know the names yet.
  if (!view.isKnown && view.names.length) view.send();
  view.isKnown = true;
  for (const name of view.names.filter((each) => Object.hasOwn(data.ends, each))) {
    if (data.ends[name].text) notify(view, data.ends[name].text, name);
    keep(view, view.names.filter((each) => each !== name));
  }
  view.show();
}

function open(box) {
  const view = { box, button: box.querySelector("button"), said: box.querySelector("span") };
  view.show = nextFrame(() => show(view));
  view.names = JSON.parse(sessionStorage.getItem(KEPT) ?? "[]");
  view.button.addEventListener("click", () => toggle(view, view.data.shown));
  return view;
}

async function toggle(view, name) {
  const others = view.names.filter((each) => each !== name);
  if (others.length < view.names.length) {
    view.said.textContent = "";
    keep(view, others);
  } else {
    const why = await refusal();
    view.said.textContent = why;
    const words = `You will be notified when ${name} ends, while this page is open in a tab.`;
    if (!why && notify(view, words, KEPT, CONFIRMED)) keep(view, [...view.names, name]);
  }
  view.show();
}

/** Why the browser shows no notifications; empty if it does. Asks the visitor where it may. */
async function refusal() {
  if (!window.isSecureContext) return "Notifications need https, or localhost.";
  if (!("Notification" in window)) return "This browser shows no notifications of web pages.";
  const answer = await Notification.requestPermission();
  if (answer === "granted") return "";
  return "The browser blocks notifications. Allow them in its settings for this page.";
}

function notify(view, text, tag, milliseconds) {
  try {
    // Of several tabs that notify of the same, the browser shows one.
    const notification = new Notification(text, { tag, silent: Boolean(milliseconds) });
    notification.addEventListener("click", () => window.focus());
    if (milliseconds) setTimeout(() => notification.close(), milliseconds);
    return true;
  } catch { // on Android
    view.said.textContent = "This browser shows no notifications of web pages.";
    return false;
  }
}

function keep(view, names) {
  view.names = names;
  sessionStorage.setItem(KEPT, JSON.stringify(names));
  view.send();
}

function show({ box, button, names, data }) {
  box.hidden = !data.shown;
  button.ariaPressed = String(names.includes(data.shown));
}
