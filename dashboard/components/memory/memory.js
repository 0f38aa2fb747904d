// A text that this browser remembers: it is kept, or told to the server once.

export default function ({ data, setTriggerValue }) {
  try {
    if (data.keep) localStorage.setItem(data.name, data.keep);
    const kept = data.ask && localStorage.getItem(data.name);
    if (kept) setTriggerValue("kept", kept);
  } catch (error) {
    console.info(`Nothing is remembered: ${error.message}`); // the browser is told not to
  }
}
