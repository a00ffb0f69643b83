// The page of `camrt serve`: its states, and what people do. A photo goes to the server; its heatmaps come back.

import { Failure, NAMED, explain, indexOf, learn, mayPass, models, token, useToken } from "./asking.js";
import { paintScale } from "./colours.js";
import { compare, drawCompared, mark, stopComparing } from "./compare.js";
import { asked, bound, describe, offer, offerModels, settle } from "./controls.js";
import { element } from "./dom.js";
import { decode, ensureBitmap, photoOf } from "./photos.js";
import { chosenClass, draw, forget, preview, reveal, show, shown } from "./result.js";
import { markSample, offerSamples } from "./samples.js";
import { saveAnswer, savePicture } from "./saving.js";
import { mebibytes } from "./words.js";

let early = null; // a file that was there before the models were
let underWay = null; // an AbortController, with its question
let resume = start; // what a token, or Try again, goes on with
let clock;

// --- taking a photo ----------------------------------------------------------------------------------------------------------
async function takeFile(file) {
  if (!file) return;
  if (file.type && !file.type.startsWith("image/")) return refuse(`${file.name} is no photo; it is ${file.type}.`);
  const { model } = asked();
  early = model ? null : file;
  if (early) return;
  const most = model.limits.body;
  if (file.size > most) {
    return refuse(`${file.name} has ${mebibytes(file.size)}, and this server takes ${mebibytes(most)}. Shrink the photo.`);
  }
  try {
    take(await photoOf(file));
  } catch (error) {
    refuse(error.message);
  }
}

async function take(photo) {
  stop();
  forget();
  element("comparison").hidden = true;
  element("target").value = element("versus").value = "";
  photo.answers = new Map();
  ask({ photo, ...asked() });
  markSample(photo);
  if (!(await decode(photo))) return;
  if (underWay?.question.photo === photo) preview(photo); // else it has been answered, or another one is there
}

// --- asking about it ---------------------------------------------------------------------------------------------------------
async function ask(question, wanted) {
  underWay?.abort();
  const mine = (underWay = Object.assign(new AbortController(), { question }));
  const aborted = () => mine.signal.aborted;
  tell("working", "Looking …");
  try {
    const answer = await explain(question, mine.signal);
    if (aborted()) return;
    await ensureBitmap(question.photo, answer, mine.signal);
    if (aborted()) return;
    underWay = null;
    await show(question, answer, wanted);
    mark();
    if (underWay) return; // something else has been asked meanwhile
    tell("done");
  } catch (error) {
    if (aborted()) return;
    underWay = null;
    fail(error, () => ask(question, wanted), question.photo);
  }
}

// Another class joins the list, or all are set against one.
function askOther() {
  const [target, versus] = [element("target"), element("versus")].map((field) => field.value.trim());
  const { question, known, chosen } = shown;
  const most = question.model.limits.targets;
  const index = indexOf(question.model, target);
  const isNew = target && !known.includes(index);
  const targets = isNew
    ? [...known.slice(0, Math.min(NAMED, most - 1)), index < 0 ? target : index]
    : question.targets && known.slice(0, most);
  ask({ ...question, versus, targets, added: isNew }, target ? index : chosen);
}

// The same photo, by another method or model.
function askAnew() {
  const question = underWay?.question ?? shown?.question;
  if (!question) return;
  const changed = { ...question, ...asked(), added: false };
  if (changed.model !== question.model) ask({ ...changed, versus: "", targets: null });
  else if (underWay) ask({ ...changed, added: question.added }, shown?.chosen);
  else ask({ ...changed, targets: question.targets && shown.known.slice(0, changed.model.limits.targets) }, shown.chosen);
}

async function compareMethods() {
  const { photo } = shown.question;
  try {
    await compare(pick);
  } catch (error) {
    fail(error, compareMethods, photo);
  }
}

function pick(method) {
  element("method").value = method;
  describe();
  askAnew();
}

function stop() {
  underWay?.abort();
  underWay = null;
  stopComparing();
}

function cancel() {
  if (!underWay) return;
  stop();
  reveal(Boolean(shown));
  if (shown) settle(shown.question);
  tell(shown ? "done" : "idle", "Cancelled.");
}

// --- telling -----------------------------------------------------------------------------------------------------------------
function tell(state, text = "") {
  document.body.dataset.state = state;
  element("status").textContent = text;
  element("seconds").textContent = "";
  clearInterval(clock);
  if (state !== "failed") element("alert").hidden = true;
  if (state !== "working") return;
  element("key").hidden = true;
  const started = Date.now();
  clock = setInterval(() => (element("seconds").textContent = ` ${Math.round((Date.now() - started) / 1000)} s`), 1000);
}

function fail(error, again, photo) {
  const unauthorised = error.status === 401;
  resume = again;
  const kept = shown && (!photo || photo === shown.question.photo);
  if (!kept) reveal(false);
  else settle(shown.question);
  tell("failed");
  if (unauthorised) element("key").hidden = false;
  element("alert").hidden = unauthorised && !token;
  const text = error.message.replace(/^the image\b/, (words) => photo?.name ?? words);
  element("alert").firstElementChild.textContent = unauthorised ? "That token is not one of this server's." : text;
  element("again").hidden = !mayPass(error);
  if (unauthorised) element("token").focus();
  else element("alert").scrollIntoView({ block: "nearest" });
  if (!(error instanceof Failure)) console.error(error);
}

function refuse(text) {
  stop();
  fail(new Failure(text), resume, shown?.question.photo);
}

// --- the beginning -----------------------------------------------------------------------------------------------------------
async function start() {
  tell("working", "Asking the server …");
  try {
    const { listed, samples } = await learn();
    offerModels(listed);
    if (!models.length) throw new Failure("No model can be asked now; the server's log says why.", 503);
    offer(models[0]);
    tell("idle");
    takeFile(early);
    await offerSamples(samples, take);
  } catch (error) {
    fail(error, start);
  }
}

// --- what people do ----------------------------------------------------------------------------------------------------------
element("file").addEventListener("change", (event) => {
  takeFile(event.target.files[0]);
  event.target.value = ""; // so that the same file can be chosen again
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", kind === "dragover");
    if (kind !== "drop") return;
    if (event.dataTransfer.files.length) takeFile(event.dataTransfer.files[0]);
    else refuse("That is no file. Save the photo first, then drop it here.");
  });
}
document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (!file) return;
  event.preventDefault();
  takeFile(file);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") underWay ? cancel() : stopComparing();
});
element("key").addEventListener("submit", (event) => {
  event.preventDefault();
  try {
    useToken(element("token").value.trim());
  } catch (error) {
    return fail(error, resume);
  }
  element("token").value = "";
  (models.length ? resume : start)();
});
element("other").addEventListener("submit", (event) => {
  event.preventDefault();
  if (shown) askOther();
});
element("model").addEventListener("change", () => {
  offer(asked().model);
  element("comparison").hidden = true;
});
element("clusters").addEventListener("change", () => bound(asked().model));
for (const id of ["model", "method", "clusters"]) {
  element(id).addEventListener("change", () => {
    describe();
    askAnew();
  });
}
element("opacity").addEventListener("input", () => {
  if (!shown) return;
  draw();
  drawCompared();
});
element("again").addEventListener("click", () => resume());
element("dismiss").addEventListener("click", () => tell(shown ? "done" : "idle"));
element("cancel").addEventListener("click", cancel);
element("compare").addEventListener("click", compareMethods);
element("stop").addEventListener("click", stopComparing);
element("save").addEventListener("click", savePicture);
element("keep").addEventListener("click", saveAnswer);

paintScale(element("scale"));
start();
