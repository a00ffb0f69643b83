// What is shown: the photo with one class's heatmap, the classes to choose from, and what it took.

import { curl } from "./asking.js";
import { heatOf, paint, seen } from "./colours.js";
import { settle } from "./controls.js";
import { element, make } from "./dom.js";
import { WAITING, brief, milliseconds, notesOf, passesOf, percent, rather, reason, stageOf } from "./words.js";

const SHOWN = [768, 1600]; // pixels of the picture's longer side, least and most

export let shown = null; // {question, answer, listed, known, chosen}: its classes, all their indices, the index of the chosen one

export const opacity = () => Number(element("opacity").value);
export const chosenClass = () => shown.listed.find((one) => one.index === shown.chosen);

// An answer, of which the class `wanted` is chosen, or else the one that was added, or the first.
export async function show(question, answer, wanted) {
  const listed = classesOf(answer);
  const chosen = listed.find((one) => one.index === wanted) ?? (question.added ? listed.at(-1) : listed[0]);
  const known = [...answer.targets.map((one) => one.index), ...(question.targets ?? []).filter(Number.isInteger)];
  shown = { question, answer, listed, known: [...new Set(known)], chosen: chosen.index };
  document.body.classList.remove("empty");
  reveal(true);
  settle(question);
  list();
  showCost();
  await choose(shown.chosen);
}

export function forget() {
  shown = null;
}

export function reveal(visible) {
  element("result").hidden = !visible;
  document.body.classList.toggle("looking", visible);
  if (!visible) element("comparison").hidden = true;
}

// The photo alone, while the server looks.
export function preview(photo) {
  document.body.classList.add("empty");
  reveal(true);
  element("caption").textContent = photo.name;
  element("outcome").hidden = true;
  element("picture").setAttribute("aria-label", `The photo ${photo.name}`);
  paintLarge(photo);
}

// --- the picture -------------------------------------------------------------------------------------------------------------
function paintLarge(photo, ...heat) {
  element("result").style.setProperty("--ratio", photo.bitmap.width / photo.bitmap.height);
  paint(element("picture"), photo, SHOWN, ...heat);
}

export function draw() {
  const { question, answer } = shown;
  const one = chosenClass();
  paintLarge(question.photo, one, opacity(), seen(answer));
  element("curl").textContent = curl(question, one, opacity());
}

async function choose(index) {
  const mine = shown;
  mine.chosen = index;
  radioOf(index).checked = true;
  const one = chosenClass();
  await heatOf(one);
  if (shown !== mine || mine.chosen !== index) return; // another one has been chosen meanwhile
  draw();
  const { question, answer } = shown;
  const words = [make("strong", {}, one.label)];
  if (one.versus) words.push(" rather than ", make("strong", {}, one.versus.label));
  words.push(` · ${percent(one.probability)} · ${answer.method}`);
  element("caption").replaceChildren(...words);
  element("outcome").textContent = reason(one);
  element("outcome").hidden = !reason(one);
  const where = one.outcome === "ok" ? `, and where the network looked for ${one.label}${rather(one)}` : "";
  element("picture").setAttribute("aria-label", `The photo ${question.photo.name}${where}`);
  Object.assign(element("picture").dataset, { shows: one.index, method: answer.method });
}

// --- the classes -------------------------------------------------------------------------------------------------------------
// Those that were explained, each once, without the one that they are set against.
function classesOf(answer) {
  const known = new Set([answer.targets[0].versus?.index]);
  const listed = answer.targets.filter((one) => !known.has(one.index) && known.add(one.index));
  return listed.length ? listed : answer.targets;
}

function list() {
  const { targets, prediction } = shown.answer;
  const against = [...targets, ...prediction].find((one) => one.index === targets[0].versus?.index);
  const rows = [...shown.listed, ...(against && !shown.listed.includes(against) ? [against] : [])];
  rows.sort((a, b) => b.probability - a.probability);
  const held = element("classes").contains(document.activeElement);
  element("classes").lastElementChild.replaceChildren(...rows.map((one) => rowOf(one, one === against)));
  element("target").value = "";
  if (held) radioOf(shown.chosen)?.focus();
}

function rowOf(one, isAgainst) {
  const fill = make("span");
  fill.style.width = `${100 * (one.probability ?? 0)}%`;
  const radio = make("input", { type: "radio", name: "class", value: one.index, disabled: isAgainst });
  radio.addEventListener("change", () => choose(one.index));
  const [name, p] = [make("span", { className: "name" }, one.label), make("span", { className: "p" }, percent(one.probability))];
  const row = make("label", {}, radio, name, p, make("span", { className: "bar" }, fill));
  if (isAgainst) row.append(make("small", {}, "what the others are set against"));
  else if (brief(one)) row.append(make("small", {}, brief(one)));
  return row;
}

const radioOf = (index) => document.querySelector(`#classes input[value="${index}"]`);

// --- what it took ------------------------------------------------------------------------------------------------------------
function showCost() {
  const { answer } = shown;
  const spent = Object.entries(answer.milliseconds).filter(([stage, ms]) => stage !== "total" && ms >= 0.05);
  const sum = spent.reduce((all, [, ms]) => all + ms, 0);
  element("total").replaceChildren(
    make("strong", {}, milliseconds(answer.milliseconds.total)),
    ` on ${answer.provider}, ${milliseconds(answer.elapsed)} from here · ${passesOf(answer)}`,
  );
  let series = 0;
  const parts = spent.map(([stage, ms]) => ({ stage, ms, colour: WAITING.includes(stage) ? "waiting" : `series-${series++ % 8}` }));
  const bar = parts.map(({ ms, colour }) => {
    const part = make("span", { className: colour });
    part.style.flexGrow = ms / sum;
    return part;
  });
  const stages = parts.map(({ stage, ms, colour }) => {
    const name = make("dt", {}, make("span", { className: `dot ${colour}` }), stageOf(stage));
    return make("div", {}, name, make("dd", {}, milliseconds(ms)));
  });
  element("bar").replaceChildren(...bar);
  element("stages").replaceChildren(...stages);
  element("notes").textContent = notesOf(answer);
}
