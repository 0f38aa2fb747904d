// The player that the films of the app share, and how their pictures are laid out.

const WORTH = 0.75; // of the room that there is, whole pixels must fill so much

/**
 * The controls of a film in `box`. The film has `index`, the frame that it stands at, and:
 * `last()`, the last frame's number; `go(k)`, which moves to a frame; `isReady()`, whether that is
 * drawn; `stands()`, called when it stands still again; `starts()`, before it plays.
 */
function openPlayer(film, box) {
  const part = (selector) => box.querySelector(selector);
  film.controls = part(".controls");
  film.play = part(".play");
  film.slider = part("input[type=range]");
  film.output = part("output");
  film.speed = part(".speed");
  film.loop = part(".loop");
  film.slider.addEventListener("input", () => {
    pause(film);
    film.go(Number(film.slider.value));
  });
  film.slider.addEventListener("change", () => film.stands());
  film.play.addEventListener("click", () => (film.playing ? pause(film) : play(film)));
  film.controls.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === " " && event.target === film.slider) {
      event.preventDefault();
      film.play.click();
    } else if (step && event.target === film.play) {
      event.preventDefault();
      pause(film);
      film.go(film.index + step);
      film.stands();
    }
  });
}

function play(film) {
  film.playing = true;
  film.starts();
  offer(film, "Pause the film");
  let turned = performance.now();
  if (film.index === film.last()) film.go(0);
  const tick = (now) => {
    if (!film.playing) return;
    const wait = 1000 / Number(film.speed.value);
    if (now - turned >= wait && film.isReady()) {
      turned = Math.max(turned + wait, now - wait); // in time, and no hurry after a stop
      if (film.index < film.last()) film.go(film.index + 1);
      else if (film.loop.checked) film.go(0);
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
  film.stands();
}

/** The button says what it does. */
function offer({ play: button }, words) {
  button.setAttribute("aria-label", words);
  button.title = words;
  button.classList.toggle("playing", words.startsWith("Pause"));
}

/** The slider stands at the film's frame, which `words` name. */
function sayWhere(film, words) {
  film.slider.value = film.index;
  film.slider.setAttribute("aria-valuetext", words);
  film.output.textContent = words;
}

/**
 * Square pictures beside each other, in lines where they must, their pixels sharp. `tiles`: the
 * image of each and where in it the picture starts, [image, x, y]; `sizes`: see `arrange`.
 */
function paintTiles(canvas, tiles, side, room, sizes) {
  const { columns, gap, scale } = arrange(tiles.length, side, room, sizes);
  // On a screen that does not show each pixel as whole ones the canvas has more of them than the
  // screen: made smaller, the edges between them stay sharp.
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
  tiles.forEach(([image, x, y], k) => {
    const [left, top] = [(k % columns) * pitch, Math.floor(k / columns) * pitch];
    context.drawImage(image, x, y, side, side, left, top, size, size);
  });
}

/**
 * Columns, the gap in the pictures' own pixels, and screen pixels per pixel: in as few lines as
 * keep a picture large enough to see, whole device pixels a pixel where that costs little room.
 * `sizes`: of a picture on the screen, the smallest and the largest, where there is room.
 */
function arrange(count, side, room, [smallest, largest]) {
  const gap = Math.max(1, Math.round(side / 32));
  for (let lines = 1; ; lines += 1) {
    const columns = Math.ceil(count / lines);
    const most = Math.min(room / (columns * (side + gap) - gap), largest / side);
    const whole = Math.floor(most * window.devicePixelRatio) / window.devicePixelRatio;
    const scale = whole >= WORTH * most ? whole : most;
    if (scale * side >= smallest || columns === 1) return { columns, gap, scale };
  }
}
