// The slider of the timestep: moves what follows it at once, and tells the server where it rests.

import { formatNumber, startMoving } from "../shared/shared.js";
import { setTimestep } from "../shared/timestep.js";

const REST_MS = 250; // after the last move by keys
const PLAY_MS = 8000; // from the first to the last timestep
const LONGEST_STEP_MS = 250; // a short schedule plays faster than PLAY_MS
const STILLS = 10; // for those who want less motion: so many jumps of a second each

export default function ({ data, parentElement, setStateValue }) {
  const box = parentElement.querySelector(".timestep");
  const slider = (box.slider ??= open(box));
  slider.tell = (t) => setStateValue("rested", [t, slider.count]);
  slider.last = data.last;
  slider.input.max = data.last;
  box.querySelector("label").textContent = data.label;
  box.querySelector(".last").textContent = formatNumber(data.last);
  const isNews = data.count >= slider.count && !isMoving(slider);
  if (isNews) slider.count = data.count;
  show(slider, isNews || slider.t === undefined ? data.t : slider.t);
}

function open(box) {
  const part = (selector) => box.querySelector(selector);
  const slider = {
    box,
    input: part("input"),
    output: part("output"),
    button: part(".play"),
    count: 0, // how often the server has been told
    move: (t) => {
      pause(slider);
      show(slider, t);
      restSoon(slider);
    },
  };
  slider.input.addEventListener("input", () => slider.move(Number(slider.input.value)));
  slider.input.addEventListener("pointerdown", () => { slider.held = true; });
  for (const end of ["pointerup", "pointercancel"]) {
    slider.input.addEventListener(end, () => {
      slider.held = false;
      if (slider.timer !== undefined) rest(slider);
    });
  }
  slider.input.addEventListener("keydown", (event) => {
    if (event.key !== " ") return;
    event.preventDefault();
    slider.button.click();
  });
  slider.button.addEventListener("click", () => {
    if (slider.playing) {
      pause(slider);
      rest(slider);
    } else {
      play(slider);
    }
  });
  offer(slider);
  return slider;
}

/** Whether what the server says of t is older than what the visitor does. */
function isMoving(slider) {
  return slider.held || slider.playing || slider.timer !== undefined;
}

/** Stand at `t`, or at the nearest timestep that there is. */
function show(slider, t) {
  const { box, input, output, last } = slider;
  slider.t = Math.max(0, Math.min(Math.round(t), last));
  input.value = slider.t;
  input.setAttribute("aria-valuetext", `${formatNumber(slider.t)} of ${formatNumber(last)}`);
  output.textContent = formatNumber(slider.t);
  box.style.setProperty("--share", slider.t / last);
  setTimestep(slider);
}

function restSoon(slider) {
  clearTimeout(slider.timer);
  slider.timer = setTimeout(() => (slider.held ? restSoon(slider) : rest(slider)), REST_MS);
}

function rest(slider) {
  clearTimeout(slider.timer);
  slider.timer = undefined;
  slider.count += 1;
  if (slider.box.isConnected) slider.tell(slider.t);
}

/** From t on, or from 0 where that is the last. */
function play(slider) {
  clearTimeout(slider.timer);
  slider.timer = undefined;
  slider.playing = true;
  offer(slider);
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const stepMs = still ? 1000 : Math.min(PLAY_MS / slider.last, LONGEST_STEP_MS);
  const stride = still ? Math.max(1, slider.last / STILLS) : 1;
  const start = { t: slider.t === slider.last ? 0 : slider.t, time: performance.now() };
  const tick = (now) => {
    if (!slider.playing || !slider.box.isConnected) return;
    startMoving(2 * REST_MS);
    const steps = Math.max(0, Math.floor((now - start.time) / stepMs));
    const t = Math.min(start.t + steps * stride, slider.last);
    if (Math.round(t) !== slider.t) show(slider, t);
    if (slider.t < slider.last) {
      requestAnimationFrame(tick);
    } else {
      pause(slider);
      rest(slider);
    }
  };
  requestAnimationFrame(tick);
}

function pause(slider) {
  slider.playing = false;
  offer(slider);
}

/** Label the button with what it does. */
function offer({ button, playing }) {
  const words = playing ? "Pause" : "Play through the timesteps";
  button.setAttribute("aria-label", words);
  button.title = words;
  button.classList.toggle("playing", Boolean(playing));
}
