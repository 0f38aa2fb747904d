// The timestep of the page: one slider sets it, and all that depends on it follows in the browser.

function shelf() {
  return (window.diffusionLabTimestep ??= { followers: new Map() });
}

/** The slider stands at `slider.t` from now on; `slider.box` is its element. */
export function setTimestep(slider) {
  const store = shelf();
  store.slider = slider;
  store.frame ??= requestAnimationFrame(() => {
    store.frame = undefined;
    for (const [element, draw] of store.followers) {
      if (element.isConnected) draw(store.slider.t);
      else store.followers.delete(element);
    }
  });
}

/**
 * Call `draw(t)` now and whenever t has changed, at most once a frame of the screen, until `element`
 * has left the page. Another call for the same element takes the place of the first. While T
 * changes, t may be beyond what `draw` knows of for a moment.
 */
export function followTimestep(element, draw) {
  const { followers, slider } = shelf();
  followers.set(element, draw);
  if (slider?.box.isConnected) draw(slider.t); // a slider of the page before is not
}

/** Move the slider to `t`, or to the nearest timestep that there is, as a hand does. */
export function moveTimestep(t) {
  const { slider } = shelf();
  if (slider?.box.isConnected) slider.move(t);
}
