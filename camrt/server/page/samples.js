// The sample photos, to begin with.

import { api } from "./asking.js";
import { element, make } from "./dom.js";

// Show samples; `take` is called with the photo of the one that is chosen.
export async function offerSamples(names, take) {
  const list = element("samples").querySelector("ul");
  element("samples").hidden = names.length === 0;
  const buttons = names.map(buttonOf);
  list.replaceChildren(...buttons.map((button) => make("li", {}, button)));
  await Promise.all(buttons.map((button) => fetchSample(button, take)));
}

export function markSample({ sample }) {
  document.querySelectorAll("#samples button").forEach((one) => one.setAttribute("aria-pressed", one.value === sample));
}

function buttonOf(name) {
  const words = name.replaceAll("_", " ");
  const image = make("img", { alt: "", width: 96, height: 96 });
  const button = make("button", { type: "button", value: name, title: words, disabled: true }, image, make("span", {}, words));
  button.setAttribute("aria-pressed", "false");
  return button;
}

// They are fetched and not linked to, because a link cannot bear a token.
async function fetchSample(button, take) {
  const name = button.value;
  const blob = await (await api(`/v1/samples/${encodeURIComponent(name)}`)).blob();
  button.firstElementChild.src = URL.createObjectURL(blob);
  button.disabled = false;
  button.addEventListener("click", () => take({ name, blob, sample: name }));
}
