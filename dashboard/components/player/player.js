// The player of the films, and the layout of their images.

import { nextFrame } from "../shared/shared.js";

const WORTH = 0.75; // the part of the available width that whole pixels must fill to be used

/**
 * Connect the controls in `box` to a film, which gets `index`, its current frame, and `redraw()`:
 * `draw` it at the next frame of the screen. The film has `isReady()`: whether the current frame is
 * on the screen. It may have `moved(before)`, called after another frame was chosen, `starts()`,
 * called before it plays, and `stands()`, called after it stops. One that is `closed` does nothing.
 */
export function openPlayer(film, box, draw) {
  const part = (selector) => box.querySelector(selector);
  film.index = 0;
  film.redraw = nextFrame(() => film.closed || draw(film));
  film.controls = part(".controls");
  film.play = part(".play");
  film.slider = part("input[type=range]");
  film.output = part("output");
  film.speed = part(".speed");
  film.loop = part(".loop");
  film.slider.addEventListener("input", () => {
    pause(film);
    go(film, Number(film.slider.value));
  });
  film.slider.addEventListener("change", () => film.stands?.());
  film.play.addEventListener("click", () => (film.playing ? pause(film) : play(film)));
  film.controls.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === " " && event.target === film.slider) {
      event.preventDefault();
      film.play.click();
    } else if (step && event.target === film.play) {
      event.preventDefault();
      pause(film);
      go(film, film.index + step);
      film.stands?.();
    }
  });
}

/** Set the number of a film's frames; one alone is nothing to move through. */
export function setFrames(film, count) {
  film.last = count - 1;
  film.slider.max = film.last;
  film.controls.hidden = count < 2;
}

/** Show a frame. */
export function go(film, index) {
  const before = film.index;
  film.index = Math.max(0, Math.min(index, film.last));
  film.moved?.(before);
  film.redraw();
}

/** From the current frame on; from the first where that is the last. */
export function play(film) {
  film.playing = true;
  film.starts?.();
  offer(film, "Pause the film");
  let turned = performance.now();
  if (film.index === film.last) go(film, 0);
  const tick = (now) => {
    if (!film.playing || film.closed) return;
    const wait = 1000 / Number(film.speed.value);
    if (now - turned >= wait && film.isReady()) {
      turned = Math.max(turned + wait, now - wait); // on time, without catching up after a wait
      if (film.index < film.last) go(film, film.index + 1);
      else if (film.loop.checked) go(film, 0);
      else return pause(film);
    }
    requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
}

function pause(film) {
  if (!film.playing) return;
  film.playing = false;
  offer(film, "Play the film");
  film.stands?.();
}

/** Label the button with what it does. */
function offer({ play: button }, words) {
  button.setAttribute("aria-label", words);
  button.title = words;
  button.classList.toggle("playing", words.startsWith("Pause"));
}

/** Set the slider to the film's frame, described by `words`. */
export function sayWhere(film, words) {
  film.slider.value = film.index;
  film.slider.setAttribute("aria-valuetext", words);
  film.output.textContent = words;
}

/**
 * Draw square images side by side with sharp pixels, in several lines if needed. `tiles`: for each,
 * the sheet and where the image starts in it, [sheet, x, y]; `sizes`: see `arrange`.
 */
export function paintTiles(canvas, tiles, side, room, sizes) {
  paintArranged(canvas, tiles, side, arrange(tiles.length, side, room, sizes));
}

/** The same, as an answer of `arrange` says. */
export function paintArranged(canvas, tiles, side, { columns, gap, scale }) {
  // If an image pixel is not a whole number of screen pixels, the canvas gets more pixels than the
  // screen shows: scaled down, edges stay sharp.
  const density = scale * window.devicePixelRatio;
  const enlarge = Number.isInteger(density) ? 1 : Math.ceil(density);
  const size = side * enlarge;
  const pitch = size + gap * enlarge;
  const width = columns * pitch - gap * enlarge;
  const height = Math.ceil(tiles.length / columns) * pitch - gap * enlarge;
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  canvas.style.width = `${(width / enlarge) * scale}px`;
  canvas.style.height = `${(height / enlarge) * scale}px`;
  canvas.classList.toggle("smoothed", !Number.isInteger(density));
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.clearRect(0, 0, width, height);
  tiles.forEach(([sheet, x, y], k) => {
    const [left, top] = [(k % columns) * pitch, Math.floor(k / columns) * pitch];
    context.drawImage(sheet, x, y, side, side, left, top, size, size);
  });
}

/**
 * Columns, the gap in image pixels, and screen pixels per image pixel. Uses as few lines as keep an
 * image large enough, and whole device pixels where that costs little width. `sizes`: the smallest
 * and the largest size of an image on the screen.
 */
export function arrange(count, side, room, [smallest, largest]) {
  const gap = Math.max(1, Math.round(side / 32));
  for (let lines = 1; ; lines += 1) {
    const columns = Math.ceil(count / lines);
    const most = Math.min(room / (columns * (side + gap) - gap), largest / side);
    const whole = Math.floor(most * window.devicePixelRatio) / window.devicePixelRatio;
    const scale = whole >= WORTH * most ? whole : most;
    if (scale * side >= smallest || columns === 1) return { columns, gap, scale };
  }
}
