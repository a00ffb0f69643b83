// Photos as the browser reads them.

import { Failure, pictureOf } from "./asking.js";

// The bytes of a file, which may change or go away.
export async function photoOf(file) {
  try {
    return { name: file.name || "photo", blob: new Blob([await file.arrayBuffer()], { type: file.type }) };
  } catch {
    throw new Failure(`${file.name} cannot be read.`);
  }
}

// The browser's own reading of a photo is shown while the server looks; some kinds, such as TIFF, only the server can read.
export async function decode(photo, blob = photo.blob) {
  try {
    photo.bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    photo.bitmap = null;
  }
  return photo.bitmap;
}

export async function ensureBitmap(photo, answer, signal) {
  const fits = () => photo.bitmap?.width === answer.width && photo.bitmap.height === answer.height;
  if (!fits()) await decode(photo);
  if (fits()) return;
  if (!(await decode(photo, await pictureOf(photo, answer, signal)))) {
    throw new Failure(`${photo.name} cannot be shown by this browser.`);
  }
}
