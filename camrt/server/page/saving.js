// What is shown, as files to take home.

import { paint, seen } from "./colours.js";
import { make } from "./dom.js";
import { chosenClass, opacity, shown } from "./result.js";

export async function savePicture() {
  const { question, answer } = shown;
  const one = chosenClass();
  const canvas = new OffscreenCanvas(1, 1);
  paint(canvas, question.photo, [0, Infinity], one, opacity(), seen(answer));
  download(await canvas.convertToBlob({ type: "image/png" }), `${stem()}.${one.label}.${answer.method}.png`);
}

export function saveAnswer() {
  const { photo, elapsed, ...answer } = shown.answer;
  const targets = answer.targets.map(({ picture, heat, ...one }) => one);
  const text = JSON.stringify({ image: shown.question.photo.name, ...answer, targets }, null, 2);
  download(new Blob([text], { type: "application/json" }), `${stem()}.${answer.method}.json`);
}

const stem = () => shown.question.photo.name.replace(/\.[a-z0-9]+$/i, "");

function download(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
