"use strict";
// A note with its marks, as elements. Text of notes enters only by textContent.

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "hue") element.style.setProperty("--h", value);
    else if (value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// The golden angle keeps the hues of neighbouring types apart.
const hueOf = (type) => Math.round((type * 137.508 + 205) % 360);

/**
 * The text in pieces, each under the marks that cover it, with a label at the end of each mark.
 * @param {string} text
 * @param {{start: number, end: number, type: number, label: string, aside: boolean,
 *          flags: string[], place: number}[]} marks
 */
function markedText(text, marks) {
  const cuts = new Set([0, text.length]);
  for (const mark of marks) cuts.add(mark.start).add(mark.end);
  const places = [...cuts].sort((a, b) => a - b);
  const out = document.createDocumentFragment();
  for (let n = 0; n + 1 < places.length; n += 1) {
    const [start, end] = [places[n], places[n + 1]];
    const covering = marks
      .filter((mark) => mark.start <= start && end <= mark.end)
      .sort((a, b) => a.end - a.start - (b.end - b.start));
    const piece = text.slice(start, end);
    if (!covering.length) {
      out.append(piece);
      continue;
    }
    const inner = covering[0];
    const classes = ["mark"];
    if (inner.aside) classes.push("aside");
    if (covering.some((mark) => mark.flags.length)) classes.push("wrong");
    if (covering.length > 1) classes.push("nested");
    const element = make("mark", { class: classes.join(" "), hue: hueOf(inner.type) }, piece);
    element.dataset.places = covering.map((mark) => mark.place).join(" ");
    const ending = covering.filter((mark) => mark.end === end);
    for (const mark of ending) {
      const tag = make("span", { class: "tag", hue: hueOf(mark.type) }, mark.label);
      if (mark.aside) tag.append(make("i", {}, " not scored"));
      for (const flag of mark.flags) tag.append(make("b", {}, ` ✗ ${flag}`));
      element.append(tag);
    }
    out.append(element);
  }
  return out;
}
