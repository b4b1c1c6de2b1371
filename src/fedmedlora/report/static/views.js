"use strict";
// Choices show and hide what Python has written; nothing is computed here.

const root = document.documentElement;

const themeButton = document.getElementById("theme");
const systemDark = window.matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches;
}

function nameTheme() {
  themeButton.textContent = isDark() ? "Light" : "Dark";
  themeButton.setAttribute("aria-label", isDark() ? "Light colours" : "Dark colours");
}

themeButton.hidden = false;
themeButton.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
});
systemDark.addEventListener("change", nameTheme);
nameTheme();

function chosenIn(section) {
  const chosen = {};
  for (const fieldset of section.querySelectorAll("fieldset[data-choice]")) {
    const inputs = [...fieldset.querySelectorAll("input")];
    chosen[fieldset.dataset.choice] = inputs.filter((one) => one.checked).map((one) => one.value);
  }
  return chosen;
}

function show(section) {
  const chosen = chosenIn(section);
  for (const block of section.querySelectorAll("[data-view]")) {
    const wanted = block.dataset.view.split(";").map((part) => part.split("="));
    block.hidden = !wanted.every(([name, value]) => !chosen[name] || chosen[name].includes(value));
  }
  const several = section.querySelector("fieldset.several[data-choice]");
  if (several) {
    const picked = chosen[several.dataset.choice];
    for (const row of section.querySelectorAll("[data-pick]")) {
      row.hidden = !picked.includes(row.dataset.pick);
    }
  }
}

for (const section of document.querySelectorAll("main > section")) {
  section.addEventListener("change", (event) => {
    if (event.target.matches("fieldset[data-choice] input")) show(section);
    if (event.target.matches("[data-intervals]")) {
      section.classList.toggle("with-intervals", event.target.checked);
    }
  });
  // A browser that goes back keeps what was checked.
  if (section.querySelector("fieldset[data-choice]")) show(section);
  const intervals = section.querySelector("[data-intervals]");
  if (intervals) section.classList.toggle("with-intervals", intervals.checked);
}

// One stop of the tab key for a table; arrows walk over its cells.
for (const table of document.querySelectorAll("table.walk")) {
  const first = table.querySelector("[data-walk]");
  if (first) first.tabIndex = 0;
  table.addEventListener("keydown", (event) => {
    const cell = event.target.closest("[data-walk]");
    if (!cell) return;
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const move = step[event.key];
    if (!move) return;
    event.preventDefault();
    const rows = [...table.rows].filter((row) => row.querySelector("[data-walk]"));
    let [row, column] = [rows.indexOf(cell.parentElement), cell.cellIndex];
    do {
      row += move[0];
      column += move[1];
      const next = rows[row] && rows[row].cells[column];
      if (!next) return;
      if (next.matches("[data-walk]")) {
        cell.tabIndex = -1;
        next.tabIndex = 0;
        next.focus();
        return;
      }
    } while (true);
  });
}

// Which section is on the screen, for the navigation.
const links = new Map(
  [...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]),
);
const seen = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      const link = links.get(entry.target.id);
      if (!link) continue;
      link.setAttribute("aria-current", "true");
      const list = link.closest("ul");
      list.scrollLeft = link.offsetLeft - list.clientWidth / 2;
    }
  },
  { rootMargin: "-15% 0px -75% 0px" },
);
for (const section of document.querySelectorAll("main > section")) seen.observe(section);
