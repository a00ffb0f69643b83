// Methods side by side: the chosen class by each of them, one after the other.

import { explain } from "./asking.js";
import { heatOf, paint, seen } from "./colours.js";
import { element, make } from "./dom.js";
import { chosenClass, opacity, shown } from "./result.js";
import { brief, milliseconds, passesOf, rather } from "./words.js";

const COMPARED = 384; // pixels of a heatmap's longer side

let comparing = null; // an AbortController
let compared = []; // {canvas, photo, one, window}, to be drawn again when the slider moves

// Ask each method for what is shown; `pick` is called with the name of the one that is then to be seen large.
export async function compare(pick) {
  comparing?.abort();
  const mine = (comparing = new AbortController());
  const question = { ...shown.question, targets: [shown.chosen], longest: COMPARED };
  const names = question.model.methods;
  const figures = names.map((name) => figureOf(name, question.photo.bitmap, pick));
  compared = [];
  reveal(figures, chosenClass());
  progress(0, names.length, true);
  try {
    for (const [i, figure] of figures.entries()) {
      await answerOf(figure, question, mine.signal);
      if (mine.signal.aborted) return;
      progress(i + 1, names.length, i + 1 < names.length);
    }
  } catch (error) {
    if (mine.signal.aborted) return;
    progress(compared.length, names.length, false);
    throw error;
  } finally {
    if (comparing === mine) comparing = null;
  }
}

export function stopComparing() {
  if (!comparing) return;
  comparing.abort();
  comparing = null;
  progress(compared.length, element("figures").childElementCount, false);
}

export function drawCompared() {
  for (const { canvas, photo, one, window } of compared) paint(canvas, photo, [0, COMPARED], one, opacity(), window);
}

// The method that is shown large is marked among those that are compared.
export function mark() {
  document
    .querySelectorAll("#figures button")
    .forEach((one) => one.setAttribute("aria-pressed", one.value === shown?.answer.method));
}

function reveal(figures, one) {
  element("comparison").hidden = false;
  element("compared").textContent =
    `${figures.length === 1 ? "One method" : `${figures.length} methods`} for ${one.label}${rather(one)}`;
  element("figures").replaceChildren(...figures.map((figure) => figure.item));
  mark();
  element("compared").focus({ preventScroll: true });
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  element("comparison").scrollIntoView({ block: "start", behavior: still ? "auto" : "smooth" });
}

function figureOf(name, { width, height }, pick) {
  const scale = Math.min(1, COMPARED / Math.max(width, height));
  const canvas = make("canvas", { width: Math.ceil(width * scale), height: Math.ceil(height * scale) });
  const cost = make("small", {}, "…");
  const button = make("button", { type: "button", value: name }, canvas, make("b", {}, name), cost);
  button.addEventListener("click", () => pick(name));
  return { name, canvas, cost, button, item: make("li", {}, button) };
}

// A method that this question does not suit says so in its place; other failures end the comparison.
async function answerOf(figure, question, signal) {
  let answer;
  try {
    answer = await explain({ ...question, method: figure.name }, signal);
  } catch (error) {
    if (signal.aborted || error.status !== 422) throw error;
    figure.cost.textContent = error.message.split(". ")[0];
    figure.button.title = error.message;
    return;
  }
  await heatOf(answer.targets[0]);
  if (!signal.aborted) fill(figure, question.photo, answer);
}

function fill({ canvas, cost, button }, photo, answer) {
  const one = answer.targets[0];
  compared.push({ canvas, photo, one, window: seen(answer) });
  paint(canvas, photo, [0, COMPARED], one, opacity(), seen(answer));
  cost.replaceChildren(milliseconds(answer.milliseconds.total), make("br"), passesOf(answer));
  if (brief(one)) cost.append(make("em", {}, brief(one)));
  button.classList.add("there");
}

function progress(done, of, going) {
  element("progress").value = done / of;
  element("progress").hidden = element("stop").hidden = !going;
  element("done").textContent = going ? `${done} of ${of}` : done < of ? `Stopped after ${done} of ${of}` : "";
}
