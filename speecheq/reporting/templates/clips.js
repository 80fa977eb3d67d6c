"use strict";
// The list of clips: sorted, filtered, and drawn a page at a time, so that ten thousand clips are no burden.
(() => {
  const ROWS = 50;
  const data = JSON.parse(document.getElementById("clip-data").textContent);
  const at = (id) => document.getElementById(id);
  const inputs = { text: at("filter-text"), truth: at("filter-true"), prediction: at("filter-predicted"),
    errors: at("filter-errors") };
  const head = at("clips").tHead.rows[0], body = at("clips").tBodies[0];
  const collator = new Intl.Collator("en", { numeric: true });
  // what the text filter looks through: all that is text
  const texts = data.rows.map((row) => row.filter((cell) => typeof cell === "string").join("\n").toLowerCase());
  let shown = [], page = 0, sorted = { column: null, direction: 1 };

  const element = (name, text = "", className = "") => {
    const made = document.createElement(name);
    made.textContent = text;
    made.className = className;
    return made;
  };

  const isWrong = (row) => row[data.truth] !== row[data.prediction];

  // what is not known comes last in both directions
  function compare(a, b) {
    const x = data.rows[a][sorted.column], y = data.rows[b][sorted.column];
    if (x === null || y === null) return (x === null) - (y === null);
    return sorted.direction * (typeof x === "number" ? x - y : collator.compare(x, y));
  }

  function choose() {
    const wanted = inputs.text.value.trim().toLowerCase();
    shown = [];
    data.rows.forEach((row, number) => {
      if ((!inputs.truth.value || row[data.truth] === inputs.truth.value)
        && (!inputs.prediction.value || row[data.prediction] === inputs.prediction.value)
        && (!inputs.errors.checked || isWrong(row)) && texts[number].includes(wanted)) shown.push(number);
    });
    if (sorted.column !== null) shown.sort(compare);
    page = 0;
    draw();
  }

  function play(button, address) {
    document.querySelectorAll("#clips audio").forEach((other) => other.pause());
    const audio = element("audio");
    audio.controls = true;
    audio.preload = "none";
    audio.src = address;
    audio.setAttribute("aria-label", button.getAttribute("aria-label"));
    audio.addEventListener("error", () => audio.replaceWith("cannot be played here"));
    button.replaceWith(audio);
    audio.focus();
    audio.play().catch(() => {}); // a browser may wait for a second click; the controls are there
  }

  function player(id) {
    const cell = element("td");
    const address = Object.hasOwn(data.audio, id) ? data.audio[id] : null;
    if (address === null) {
      cell.textContent = "n/a";
      return cell;
    }
    const button = element("button", "\u25B6 play");
    button.type = "button";
    button.setAttribute("aria-label", `play ${id}`);
    button.addEventListener("click", () => play(button, address));
    cell.append(button);
    return cell;
  }

  function cellOf(row, place) {
    const { digits, posterior } = data.columns[place], value = row[place];
    if (place === 0) {
      const name = element("th", value);
      name.scope = "row";
      return name;
    }
    const figure = digits === undefined ? "" : "figure";
    const cell = element("td", value === null ? "n/a" : figure ? value.toFixed(digits) : value, figure);
    if (posterior) {
      cell.classList.add("share");
      cell.style.setProperty("--part", `${100 * value}%`);
    } else if (place === data.prediction) {
      const wrong = isWrong(row); // said by a sign and a word, not by the colour alone
      cell.className = wrong ? "wrong" : "right";
      cell.prepend(element("span", wrong ? "wrong: " : "right: ", "hidden"), wrong ? "\u2717 " : "\u2713 ");
    }
    return cell;
  }

  function draw() {
    const last = Math.max(0, Math.ceil(shown.length / ROWS) - 1);
    page = Math.min(Math.max(page, 0), last);
    const numbers = shown.slice(page * ROWS, (page + 1) * ROWS);
    body.replaceChildren(...numbers.map((number) => {
      const row = data.rows[number], line = element("tr");
      line.append(...row.map((_, place) => cellOf(row, place)));
      line.cells[0].after(player(row[0]));
      return line;
    }));
    const from = shown.length ? page * ROWS + 1 : 0;
    at("clips-status").textContent = `${from} to ${page * ROWS + numbers.length} of ${shown.length} predictions`
      + (shown.length < data.rows.length ? ` (${data.rows.length} without filters)` : "");
    at("page-first").disabled = at("page-previous").disabled = page === 0;
    at("page-next").disabled = at("page-last").disabled = page === last;
  }

  function heading(column, place) {
    const cell = element("th", "", column.digits === undefined ? "" : "figure");
    const button = element("button", column.heading);
    cell.scope = "col";
    cell.setAttribute("aria-sort", "none");
    button.type = "button";
    button.addEventListener("click", () => {
      sorted = { column: place, direction: sorted.column === place ? -sorted.direction : 1 };
      for (const other of head.cells) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
      cell.setAttribute("aria-sort", sorted.direction > 0 ? "ascending" : "descending");
      choose();
    });
    cell.append(button);
    return cell;
  }

  head.append(...data.columns.map(heading));
  const listen = element("th", "listen");
  listen.scope = "col";
  head.cells[0].after(listen);
  for (const select of [inputs.truth, inputs.prediction]) {
    for (const name of data.classes) select.append(new Option(name, name));
  }
  inputs.text.addEventListener("input", choose);
  for (const input of [inputs.truth, inputs.prediction, inputs.errors]) input.addEventListener("change", choose);
  const turn = { "page-first": () => 0, "page-previous": () => page - 1, "page-next": () => page + 1,
    "page-last": () => Infinity };
  for (const [id, to] of Object.entries(turn)) {
    at(id).addEventListener("click", () => {
      page = to();
      draw();
    });
  }
  choose();
})();
