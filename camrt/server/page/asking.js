// Talking to the server: what it offers, and questions about photos. A photo's bytes go once; then its name does.

import { quoted } from "./dom.js";

export const NAMED = 5; // classes that are shown of a photo
const ASKED = 1024; // pixels of a heatmap's longer side
const REMEMBERED = 48; // answers about a photo
const PASSING = [0, 408, 429, 500, 503, 504]; // statuses after which the same question may well be answered

export class Failure extends Error {
  constructor(text, status = -1) {
    super(text);
    this.status = status;
  }
}

export const mayPass = (error) => PASSING.includes(error.status);

export let token = sessionStorage.getItem("token") ?? "";
export let models = []; // as the server lists them, those that can be asked
let methods = {}; // by name

export function useToken(given) {
  if (!/^[\x21-\x7e]+$/.test(given)) throw new Failure("A token has letters, digits and signs only, and no spaces.");
  token = given;
  sessionStorage.setItem("token", token);
}

export async function api(path, options = {}) {
  let response;
  try {
    response = await fetch(path, {
      ...options,
      headers: { ...(token && { Authorization: `Bearer ${token}` }), ...options.headers },
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The server cannot be reached. Is it still running?", 0);
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  throw new Failure(told.error ?? `The server answered ${response.status}.`, response.status);
}

// Learn what can be asked; return all models, also those that cannot, and the names of the samples.
export async function learn() {
  const read = async (path) => (await api(path)).json();
  const listed = await read("/v1/models"); // alone at first: where a token is needed, one refusal tells it
  const [offered, samples] = await Promise.all([read("/v1/methods"), read("/v1/samples")]);
  methods = Object.fromEntries(offered.map((method) => [method.name, method]));
  models = listed.filter((model) => model.methods.length);
  return { listed, samples };
}

export const methodOf = (name) => methods[name];
export const hasClusters = (name) => "clusters" in (methods[name]?.parameters ?? {});
export const indexOf = ({ labels }, text) => (/^\d+$/.test(text) && !labels.includes(text) ? Number(text) : labels.indexOf(text));

// A question is {photo, model, method, clusters, versus, targets, longest}; a photo {name, blob, sample, kept, bitmap, answers}.
function query({ photo, model, method, clusters, versus, targets, longest = ASKED }) {
  const asked = new URLSearchParams({ model: model.name, method, image: "heatmap", longest });
  const against = indexOf(model, versus); // no class to ask for
  if (targets) targets.filter((target) => target !== against).forEach((target) => asked.append("target", target));
  else asked.set("top", Math.min(NAMED, model.limits.targets, model.classes));
  if (versus) asked.set("versus", versus);
  if (clusters && hasClusters(method)) asked.set("clusters", clusters);
  if (photo.sample) asked.set("sample", photo.sample);
  return asked;
}

export async function explain(question, signal) {
  const { photo } = question;
  const asked = query(question);
  const key = String(asked);
  if (photo.answers.has(key)) return photo.answers.get(key);
  const started = performance.now();
  const answer = await (await send(photo, asked, signal)).json();
  answer.elapsed = performance.now() - started;
  if (!photo.sample) photo.kept = answer.photo;
  if (photo.answers.size >= REMEMBERED) photo.answers.clear();
  photo.answers.set(key, answer);
  return answer;
}

// The photo as the server reads it, for a browser that cannot.
export async function pictureOf(photo, answer, signal) {
  const plain = new URLSearchParams({ model: answer.model, target: answer.targets[0].index, image: "overlay", alpha: 0 });
  if (photo.sample) plain.set("sample", photo.sample);
  return (await send(photo, plain, signal, { Accept: "image/png" })).blob();
}

async function send(photo, asked, signal, headers = {}) {
  const post = (body) => api(`/v1/explain?${asked}`, { method: "POST", body, signal, headers });
  if (photo.sample) return post();
  if (photo.kept) {
    asked.set("photo", photo.kept);
    try {
      return await post();
    } catch (error) {
      if (error.status !== 404) throw error; // else the server has forgotten it
      asked.delete("photo");
      photo.kept = null;
    }
  }
  return post(photo.blob);
}

// The command line that asks for the picture of one class.
export function curl(question, one, opacity) {
  const asked = query({ ...question, targets: [one.index] });
  asked.delete("image");
  asked.delete("longest");
  asked.set("alpha", opacity);
  const body = question.photo.sample ? "-X POST" : `--data-binary ${quoted(`@${question.photo.name}`)}`;
  const key = token ? ' -H "Authorization: Bearer $TOKEN"' : "";
  return `curl ${body} -H 'Accept: image/png'${key} \\\n  ${quoted(`${location.origin}/v1/explain?${asked}`)} \\\n  -o heatmap.png`;
}
