// The controls, built from the declarations that the server sends: labels, bounds, options.

/** Build all controls into `box`; `changed(field, value)` is called with every change.

 Returns a function that shows the values of some settings and hides what they do not need. */
export function buildControls(box, groups, changed) {
  const built = groups.flatMap(({ title, controls, open }) => {
    const group = document.createElement("details");
    group.open = open;
    const summary = document.createElement("summary");
    summary.textContent = title;
    const list = document.createElement("div");
    list.className = "group";
    group.append(summary, list);
    box.append(group);
    return controls.map((control) => {
      const one = builders[control.kind](control, (value) => changed(control.field, value));
      one.element.title = control.help ?? "";
      list.append(one.element);
      return { ...control, ...one };
    });
  });
  return (settings) => {
    for (const { element, field, needs, show } of built) {
      element.hidden = Boolean(needs) && !needs[1].includes(settings[needs[0]]);
      show(settings[field], settings);
    }
  };
}

function labelled(name, text, ...parts) {
  const element = document.createElement("label");
  element.className = name;
  const words = document.createElement("span");
  words.textContent = text;
  element.append(words, ...parts);
  return element;
}

const builders = {
  choice({ label, options }, changed) {
    const select = document.createElement("select");
    select.append(...options.map(([, title]) => new Option(title)));
    select.addEventListener("change", () => changed(options[select.selectedIndex][0]));
    const element = labelled("choice", label, select);
    return {
      element,
      show: (value) => { select.selectedIndex = options.findIndex(([option]) => option === value); },
    };
  },

  /** Buttons side by side; of `many` any that are pressed. */
  segments({ label, options, many }, changed) {
    const element = document.createElement("div");
    element.className = "segments";
    element.role = "group";
    element.ariaLabel = label;
    let now;
    const buttons = options.map(([option, title]) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = title;
      button.addEventListener("click", () => {
        if (!many) return changed(option);
        const others = now.filter((each) => each !== option);
        const chosen = others.length < now.length ? others : [...now, option];
        // In the order of the options; the last one stays.
        const kept = options.map(([each]) => each).filter((each) => chosen.includes(each));
        return kept.length && changed(kept);
      });
      element.append(button);
      return button;
    });
    return {
      element,
      show(value) {
        now = value;
        buttons.forEach((button, k) => {
          const [option] = options[k];
          button.ariaPressed = String(many ? value.includes(option) : value === option);
        });
      },
    };
  },

  range({ label, low, high, step, most }, changed) {
    const input = document.createElement("input");
    const output = document.createElement("output");
    Object.assign(input, { type: "range", min: low, max: high, step });
    input.addEventListener("input", () => changed(input.valueAsNumber));
    const element = labelled("range", label, output, input);
    return {
      element,
      show(value, settings) {
        if (most) input.max = settings[most];
        input.value = value;
        output.textContent = String(Number(input.value));
      },
    };
  },

  number({ label, low, high, step }, changed) {
    const input = document.createElement("input");
    Object.assign(input, { type: "number", min: low, max: high, step });
    input.addEventListener("change", () => {
      if (input.value && input.checkValidity()) changed(input.valueAsNumber);
      else input.reportValidity();
    });
    return { element: labelled("number", label, input), show: (value) => { input.value = value; } };
  },

  toggle({ label }, changed) {
    const input = document.createElement("input");
    input.type = "checkbox";
    input.addEventListener("change", () => changed(input.checked));
    const element = labelled("toggle", label);
    element.prepend(input);
    return { element, show: (value) => { input.checked = value; } };
  },
};
