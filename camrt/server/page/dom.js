// Elements of the page, found and made.

export const element = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`; // for a shell
