// What the server tells in codes and numbers, in words.

const OUTCOMES = {
  flat_map: ["the map is flat", "The map is the same everywhere: no part of the photo counts more than another."],
  no_positive_evidence: ["nothing speaks for it", "Nothing in the photo speaks for it, so there is no heatmap to show."],
  not_finite: ["no finite numbers", "The network or the method gave numbers that are not finite, so there is no heatmap to show."],
};
const NOTES = {
  fewer_clusters: "There were fewer distinct feature maps than clusters asked for.",
  empty_cluster_reseeded: "A cluster that had become empty was seeded anew.",
  chunk_halved: "Memory was short, so that fewer images were run at a time.",
  provider_fallback: "The provider that was asked for could not be had; another one ran.",
};
const STAGES = {
  decode: "reading the photo",
  preprocess: "resizing it",
  queue: "waiting in line",
  wait: "waiting for the device",
  forward: "the network",
  backward: "gradients",
  cluster: "clustering",
  group: "grouping",
  masked: "masked photos",
  tail: "edited features",
  merge: "merging",
  render: "drawing",
};
export const WAITING = ["queue", "wait"];

// Why there is no heatmap, in a few words and in a sentence; nothing where there is one.
export const brief = ({ outcome }) => (outcome === "ok" ? "" : (OUTCOMES[outcome]?.[0] ?? outcome));
export const reason = ({ outcome }) => (outcome === "ok" ? "" : (OUTCOMES[outcome]?.[1] ?? outcome));

export const stageOf = (stage) => STAGES[stage] ?? stage;
export const notesOf = ({ notes }) => notes.map((note) => NOTES[note] ?? note).join(" ");
export const rather = ({ versus }) => (versus ? ` rather than ${versus.label}` : "");

export const percent = (p) => (p === null ? "–" : p > 0 && p < 0.0005 ? "<\u00a00.1\u00a0%" : `${(100 * p).toFixed(1)}\u00a0%`);
export const milliseconds = (ms) => `${ms < 10 ? ms.toFixed(1) : Math.round(ms)}\u00a0ms`;
export const mebibytes = (bytes) => `${Number((bytes / 2 ** 20).toPrecision(3)).toLocaleString("en")}\u00a0MiB`;

export function passesOf({ passes, tail_passes: tail, backward_passes: backward }) {
  const told = [`${passes}\u00a0${passes === 1 ? "pass" : "passes"}`];
  if (tail) told.push(`${tail}\u00a0tail`);
  if (backward) told.push(`${backward}\u00a0backward`);
  return told.join(" + ");
}
