// What all components share: frames of the screen, the theme's values, images.

/** A function that calls `draw` at the next frame of the screen, once however often it is called. */
export function nextFrame(draw) {
  let frame;
  return () => {
    frame ??= requestAnimationFrame(() => {
      frame = undefined;
      draw();
    });
  };
}

/** A value of the app's theme, for example "primary-color"; an empty text if it has none. */
export function themeValue(element, name) {
  return getComputedStyle(element).getPropertyValue(`--st-${name}`).trim();
}

/** The colours of one of the theme's palettes, for example "chart-categorical-colors". */
export function themeColours(element, name) {
  return themeValue(element, name).split(/,(?![^(]*\))/).map((colour) => colour.trim());
}

/** Start loading an image and call `loaded` when it can be drawn. */
export function loadImage(address, loaded) {
  const image = new Image();
  image.addEventListener("load", () => loaded(image));
  image.src = address;
  return image;
}

/** 12345 as "12,345". */
export function formatNumber(value) {
  return value.toLocaleString("en-US");
}

/** "1 image", "12,345 images". */
export function formatImages(count) {
  return count === 1 ? "1 image" : `${formatNumber(count)} images`;
}

/** Something on the page moves: redraws that would make it stutter wait this long. */
export function startMoving(milliseconds) {
  window.diffusionLabMovingUntil = performance.now() + milliseconds;
}

/** Milliseconds until nothing moves. */
export function movingFor() {
  return (window.diffusionLabMovingUntil ?? 0) - performance.now();
}
