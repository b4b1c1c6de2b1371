"use strict";
// The error browser: what Python found, filtered and shown. Nothing is scored here.

const source = document.getElementById("browser-data");
if (source) startBrowser(JSON.parse(source.textContent));

function startBrowser(data) {
  const part = (name) => document.getElementById(`b-${name}`);
  const panel = document.getElementById("browser");
  panel.hidden = false;
  const state = { note: 0, error: -1 };

  function fill(select, options) {
    select.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
  }

  const cohort = () => data.cohorts[Number(part("cohort").value)];
  const task = () => Number(part("task").value);
  const search = () => part("search").value.trim().toLowerCase();
  const first = () => Number(part("first").value);

  fill(part("cohort"), data.cohorts.map((one, n) => [n, `${one.name} (${one.documents.length})`]));
  fill(part("first"), data.methods.map((name, n) => [n, name]));
  part("first").value = String(preferred());
  fillTasks();

  function preferred() {
    const found = data.methods.findIndex((name) => name.startsWith("fed"));
    return found < 0 ? 0 : found;
  }

  function fillTasks() {
    const before = part("task").value;
    const tasks = cohort().tasks;
    fill(part("task"), tasks.map((n) => [n, data.tasks[n]]));
    if (tasks.includes(Number(before)) && before !== "") part("task").value = before;
  }

  function startCounting() {
    function refresh() {
      const kinds = data.kinds.map((_, n) => n).filter((n) => n < 4 || data.tasks[task()] === "relations");
      const rows = cohort().documents
        .filter((one) => one.id.toLowerCase().includes(search()))
        .map((one) => {
          const counts = kinds.map((kind) => {
            const found = one.counts.find((c) => c[0] === first() && c[1] === task() && c[2] === kind);
            return found ? found[3] : 0;
          });
          return [one.id, ...counts, counts.reduce((a, b) => a + b, 0)];
        });
      const totals = kinds.map((_, n) => rows.reduce((sum, row) => sum + row[n + 1], 0));
      const all = totals.reduce((a, b) => a + b, 0);
      part("status").textContent = `${rows.length} notes, ${all} errors`;
      const head = ["Note", ...kinds.map((n) => data.kinds[n]), "all"];
      part("list").replaceChildren(
        table(`Errors of ${data.methods[first()]}: ${data.tasks[task()]}, ${cohort().name}`, head, [
          ...rows,
          ["all of these", ...totals, all],
        ]),
      );
    }
    for (const name of ["cohort", "task", "first", "search"]) {
      part(name).addEventListener("input", () => {
        if (name === "cohort") fillTasks();
        refresh();
      });
    }
    refresh();
  }

  function table(caption, head, rows) {
    const body = rows.map((row) =>
      make("tr", {}, ...row.map((value, n) => make(n ? "td" : "th", n ? { class: "num" } : { scope: "row" }, String(value)))),
    );
    return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
      make("table", {}, make("caption", {}, caption),
        make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name)))),
        make("tbody", {}, ...body)));
  }

  function startReading() {
    fill(part("second"), [[-1, "none"], ...data.methods.map((name, n) => [n, name])]);
    data.kinds.forEach((kind, n) => {
      const input = make("input", { type: "checkbox", value: n });
      input.checked = true;
      part("kinds").append(make("label", {}, input, make("span", {}, kind)));
    });
    fillTypes();
    for (const name of ["cohort", "task", "first", "second", "type", "search", "kinds"]) {
      part(name).addEventListener("input", () => {
        if (name === "cohort") fillTasks();
        if (name === "cohort" || name === "task") fillTypes();
        find();
      });
    }
    part("note-back").addEventListener("click", () => stepNote(-1));
    part("note-on").addEventListener("click", () => stepNote(1));
    part("back").addEventListener("click", () => stepError(-1));
    part("on").addEventListener("click", () => stepError(1));
    document.addEventListener("keydown", onKey);
    find();
  }

  function onKey(event) {
    const busy = event.target.closest("input:not([type=checkbox]), select, textarea, summary, table.walk");
    if (!part("keys").checked || busy || event.ctrlKey || event.metaKey || event.altKey) return;
    // Only here: elsewhere the keys are the page's; what scrolls keeps its arrows.
    if (!panel.contains(document.activeElement)) return;
    if (event.key.startsWith("Arrow") && event.target.matches(".note-text, .scroll")) return;
    const steps = {
      j: [stepError, 1], k: [stepError, -1], ArrowDown: [stepError, 1], ArrowUp: [stepError, -1],
      ArrowRight: [stepNote, 1], ArrowLeft: [stepNote, -1],
    };
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    step[0](step[1]);
  }

  function isModifier(type) {
    return !data.mains.includes(type);
  }

  function fillTypes() {
    const used = new Set();
    for (const one of cohort().documents) {
      for (const error of one.errors) {
        if (error[1] === task()) used.add(error[3]).add(error[4]);
      }
    }
    const names = data.types.map((name, n) => [n, name]).filter(([n]) => used.has(n));
    const before = part("type").value;
    fill(part("type"), [[-1, "all types"], ...names]);
    if (names.some(([n]) => String(n) === before)) part("type").value = before;
  }

  const methods = () => [first(), Number(part("second").value)].filter((n, place, all) => n >= 0 && all.indexOf(n) === place);

  function kinds() {
    return [...part("kinds").querySelectorAll("input")].filter((one) => one.checked).map((one) => Number(one.value));
  }

  let notes = [];

  function find() {
    const [wanted, chosen, type] = [kinds(), methods(), Number(part("type").value)];
    const unfiltered = wanted.length === data.kinds.length && type < 0;
    notes = [];
    for (const document of cohort().documents) {
      const text = search();
      if (text && !document.text.toLowerCase().includes(text) && !document.id.toLowerCase().includes(text)) continue;
      const errors = document.errors.filter(
        (error) => chosen.includes(error[0]) && error[1] === task() && wanted.includes(error[2]) &&
          (type < 0 || error[3] === type || error[4] === type),
      );
      errors.sort((a, b) => where(document, a) - where(document, b));
      if (errors.length || unfiltered) notes.push({ document, errors });
    }
    state.note = 0;
    state.error = -1;
    render();
  }

  function answerOf(document, method) {
    const asked = data.tasks[task()] === "entities" ? "entities" : "modifiers";
    return document.answers.find((one) => one.method === method && one.task === asked);
  }

  function where(document, error) {
    if (error[5].length) return document.gold[error[5][error[5].length - 1]][0];
    return answerOf(document, error[0]).spans[error[6][error[6].length - 1]][0];
  }

  function stepNote(by) {
    if (!notes.length) return;
    state.note = Math.min(notes.length - 1, Math.max(0, state.note + by));
    state.error = -1;
    render();
  }

  // Past a note's last error comes the next note's first.
  function stepError(by) {
    let [note, error] = [state.note, state.error + by];
    if (state.error < 0 && by < 0) error = -1;
    while (notes[note] && (error < 0 || error >= notes[note].errors.length)) {
      note += by;
      if (!notes[note]) return;
      error = by > 0 ? 0 : notes[note].errors.length - 1;
    }
    if (!notes[note]) return;
    Object.assign(state, { note, error });
    render();
  }

  const letter = (method) => "AB"[methods().indexOf(method)];

  function render() {
    const current = notes[state.note];
    const total = notes.reduce((sum, one) => sum + one.errors.length, 0);
    if (!current) {
      part("status").textContent = "No note with such errors.";
      part("panels").replaceChildren();
      part("list").replaceChildren();
      return;
    }
    const held = part("panels").contains(document.activeElement) || part("list").contains(document.activeElement);
    const before = notes.slice(0, state.note).reduce((sum, one) => sum + one.errors.length, 0);
    const at = state.error < 0 ? `${current.errors.length} here` : `error ${before + state.error + 1}`;
    part("status").textContent =
      `Note ${state.note + 1} of ${notes.length}: ${current.document.id}; ${at}, ${total} in all`;
    part("panels").replaceChildren(
      goldPanel(current),
      ...methods().map((method) => answerPanel(current, method)),
    );
    part("list").replaceChildren(errorList(current));
    point(current);
    // What had the focus is gone: keep it here, where the keys work.
    if (held) panel.focus({ preventScroll: true });
  }

  function goldPanel({ document, errors }) {
    const flags = new Map();
    for (const error of errors) {
      const told = methods().length > 1 ? `${data.kinds[error[2]]} (${letter(error[0])})` : data.kinds[error[2]];
      flagged(flags, error[5], told);
    }
    return panelOf("Gold", "gold", document, document.gold, document.links, flags);
  }

  function answerPanel({ document, errors }, method) {
    const flags = new Map();
    for (const error of errors.filter((one) => one[0] === method)) {
      flagged(flags, error[6], data.kinds[error[2]]);
    }
    const name = methods().length > 1 ? `${letter(method)}: ${data.methods[method]}` : data.methods[method];
    const answer = answerOf(document, method);
    if (!answer) return make("article", { class: "panel" }, make("h3", {}, name), make("p", {}, "It has no answer here."));
    return panelOf(name, String(method), document, answer.spans, answer.links, flags);
  }

  // Of a relation the modifier carries the flag.
  function flagged(flags, places, told) {
    if (!places.length) return;
    const place = places[places.length - 1];
    flags.set(place, [...(flags.get(place) || []), told]);
  }

  function panelOf(title, name, document, spans, links, flags) {
    const entities = data.tasks[task()] === "entities";
    const places = spans.map((_, n) => n).filter((n) => !entities || !isModifier(spans[n][2]));
    const numbers = new Map();
    if (!entities) {
      const heads = places.filter((n) => !isModifier(spans[n][2]));
      heads.sort((a, b) => spans[a][0] - spans[b][0] || spans[a][1] - spans[b][1]);
      heads.forEach((n, order) => numbers.set(n, order + 1));
    }
    const marks = places.map((place) => {
      const [start, end, type] = spans[place];
      const heads = entities ? [] : links.filter(([, tail]) => tail === place).map(([head]) => numbers.get(head));
      const own = numbers.has(place) ? ` ${numbers.get(place)}` : "";
      return {
        start, end, type, place,
        label: data.types[type] + own + (heads.length ? ` → ${heads.join(", ")}` : ""),
        aside: document.asked !== null && !document.asked.includes(type),
        flags: flags.get(place) || [],
      };
    });
    const text = make("div", { class: "note-text", tabindex: "0", role: "region", "aria-label": `${title}: ${document.id}` });
    text.append(markedText(document.text, marks));
    return make("article", { class: "panel", "data-panel": name }, make("h3", {}, title), text);
  }

  function said(document, spans, places) {
    return places.map((n) => `“${document.text.slice(spans[n][0], spans[n][1])}”`).reverse().join(" of ");
  }

  function errorList({ document, errors }) {
    if (!errors.length) return make("p", { class: "small" }, "No errors here.");
    const rows = errors.map((error, n) => {
      const [method, , kind, type, predicted, gold, answered] = error;
      const spans = answered.length ? answerOf(document, method).spans : [];
      const types = predicted >= 0 && predicted !== type ? `${data.types[type]}, not ${data.types[predicted]}` : data.types[type];
      const button = make("button", { type: "button", class: "pick" }, data.kinds[kind]);
      button.addEventListener("click", () => {
        state.error = n;
        render();
        part("list").querySelectorAll("button.pick")[n].focus({ preventScroll: true });
      });
      const row = make("tr", { "aria-current": n === state.error ? "true" : undefined },
        make("th", { scope: "row" }, button),
        make("td", { class: "word" }, types),
        ...(methods().length > 1 ? [make("td", { class: "word" }, `${letter(method)}: ${data.methods[method]}`)] : []),
        make("td", { class: "word" }, said(document, document.gold, gold) || "–"),
        make("td", { class: "word" }, said(document, spans, answered) || "–"));
      return row;
    });
    const head = ["Kind", "Type", ...(methods().length > 1 ? ["Method"] : []), "Gold", "Predicted"];
    return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Errors of this note" },
      make("table", { class: "errors" }, make("caption", {}, `Errors of this note (${errors.length})`),
        make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name)))),
        make("tbody", {}, ...rows)));
  }

  // Mark the chosen error in every panel and bring it into sight there, without moving the page.
  function point({ errors }) {
    const error = errors[state.error];
    if (!error) return;
    for (const article of part("panels").children) {
      const name = article.dataset.panel;
      const places = name === "gold" ? error[5] : name === String(error[0]) ? error[6] : [];
      const marks = [...article.querySelectorAll("mark")].filter((mark) =>
        mark.dataset.places.split(" ").some((place) => places.includes(Number(place))));
      for (const mark of marks) mark.classList.add("chosen");
      const box = article.querySelector(".note-text");
      const last = marks[marks.length - 1];
      if (box && last) box.scrollTop = last.offsetTop - box.clientHeight / 2;
    }
    const row = part("list").querySelector("tr[aria-current]");
    const box = row.closest(".scroll");
    box.scrollTop = row.offsetTop - box.clientHeight / 2;
  }

  if (data.text) startReading();
  else startCounting();
}
