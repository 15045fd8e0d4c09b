"use strict";
// Answers go to the server one after the other in the order given, and wait here, also over a reload, until it has
// them: one that is sent twice is there once.

const SIDES = ["left", "right"];
const RETRY_MS = 1000;
const byId = (id) => document.getElementById(id);
let session = null;
let current = 0;
let sending = false;

const stored = (key, otherwise) => JSON.parse(localStorage.getItem(key) ?? JSON.stringify(otherwise));
const store = (key, value) => localStorage.setItem(key, JSON.stringify(value));
const newId = () => `${Date.now()} ${Math.random()}`;
const pause = (ms) => new Promise((resume) => setTimeout(resume, ms));
const unsent = () => stored("unsent", []);

async function post(path, body) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  const said = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(said.error), { refused: answer.status === 400 });
  return said;
}

function say(text, waiting) {
  byId("saving").textContent = text;
  byId("saving").className = waiting ? "waiting" : "";
}

async function sendUnsent() {
  if (sending) return;
  sending = true;
  while (unsent().length > 0) {
    const [first] = unsent();
    let problem = null;
    try {
      await post("api/answer", first);
    } catch (error) {
      problem = error;
    }
    if (problem && !problem.refused) {
      const reason = problem instanceof TypeError ? "the server cannot be reached" : problem.message;
      say(`not kept yet (${unsent().length}): ${reason}; trying again`, true);
      await pause(RETRY_MS);
      continue;
    }
    store("unsent", unsent().filter((one) => one.id !== first.id)); // another tab may have sent it too
    say(problem ? `an answer was refused: ${problem.message}` : "kept", Boolean(problem));
  }
  sending = false;
}

async function begin(rater) {
  await sendUnsent(); // what a reload interrupted comes first
  session = await post("api/session", { rater });
  store("rater", session.rater);
  const open = session.pairs.findIndex((pair) => missing(pair) > 0);
  byId("begin").hidden = true;
  byId("who").textContent = `rated by ${session.rater}`;
  if (open < 0) await finish();
  else show(open);
}

function missing(pair) {
  const given = SIDES.reduce((sum, side) => sum + Object.keys(pair.answers[side]).length, 0);
  return SIDES.length * Object.keys(session.questions).length - given;
}

function media(pair, side) {
  const shown = document.createElement(pair.kind === "image" ? "img" : "video");
  shown.src = `video/${pair.pair}/${side}?rater=${encodeURIComponent(session.rater)}`;
  if (pair.kind === "image") {
    shown.alt = `${side} video`;
  } else {
    Object.assign(shown, { loop: true, muted: true, autoplay: true, playsInline: true });
    shown.setAttribute("aria-label", `${side} video`);
  }
  shown.addEventListener("error", () => say(`the ${side} video cannot be shown`, true));
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  caption.textContent = side;
  figure.append(caption, shown);
  return figure;
}

function questionRow(pair, side, question) {
  const row = document.createElement("fieldset");
  const legend = document.createElement("legend");
  const detail = document.createElement("small");
  detail.textContent = ` ${session.questions[question]}`;
  legend.append(`${side}: ${question}`, document.createElement("br"), detail);
  const scale = document.createElement("div");
  scale.className = "scale";
  for (let rating = 1; rating <= 5; rating++) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: `${side} ${question}`, value: String(rating) });
    input.checked = pair.answers[side][question] === rating;
    input.addEventListener("change", () => answer(pair, side, question, rating));
    label.append(input, ` ${rating}`);
    scale.append(label);
  }
  row.append(legend, scale);
  return row;
}

function show(number) {
  current = number;
  const pair = session.pairs[number];
  byId("end").hidden = true;
  byId("rating").hidden = false;
  byId("place").textContent = `Pair ${number + 1} of ${session.pairs.length},`;
  byId("prompt").textContent = pair.prompt;
  byId("videos").replaceChildren(...SIDES.map((side) => media(pair, side)));
  const rows = Object.keys(session.questions).flatMap((question) =>
    SIDES.map((side) => questionRow(pair, side, question)));
  byId("questions").replaceChildren(...rows);
  focusRow(Math.max(0, rows.findIndex((row) => !row.querySelector(":checked"))));
  showState();
}

async function finish() {
  while (unsent().length > 0) await pause(50);
  byId("rating").hidden = true;
  byId("end").hidden = false;
  byId("again").focus();
}

function showState() {
  if (!session || byId("rating").hidden) return;
  const left = missing(session.pairs[current]);
  byId("back").disabled = current === 0;
  byId("next").disabled = left > 0;
  byId("missing").textContent = left > 0 ? `${left} ratings to go` : "";
}

function answer(pair, side, question, rating) {
  pair.answers[side][question] = rating;
  store("unsent", [...unsent(), { rater: session.rater, pair: pair.pair, side, question, rating, id: newId() }]);
  showState();
  sendUnsent();
}

const rows = () => [...byId("questions").children];

function focusRow(number) {
  const row = rows()[Math.min(Math.max(number, 0), rows().length - 1)];
  (row.querySelector(":checked") ?? row.querySelector("input")).focus();
}

function next() {
  if (byId("next").disabled) return;
  if (current + 1 < session.pairs.length) show(current + 1);
  else finish();
}

document.addEventListener("keydown", (event) => {
  if (byId("rating").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  const row = rows().findIndex((one) => one.contains(document.activeElement));
  if (/^[1-5]$/.test(event.key) && row >= 0) {
    rows()[row].querySelectorAll("input")[Number(event.key) - 1].click();
    focusRow(row + 1);
  } else if (event.key === "ArrowDown" && row >= 0) {
    focusRow(row + 1);
  } else if (event.key === "ArrowUp" && row >= 0) {
    focusRow(row - 1);
  } else if (event.key === "Enter" && document.activeElement.tagName !== "BUTTON") {
    next();
  } else {
    return;
  }
  event.preventDefault();
});

byId("begin").addEventListener("submit", (event) => {
  event.preventDefault();
  begin(byId("rater").value).catch((error) => say(error.message, true));
});
byId("questions").addEventListener("submit", (event) => event.preventDefault());
byId("next").addEventListener("click", next);
byId("back").addEventListener("click", () => show(current - 1));
byId("again").addEventListener("click", () => show(0));
byId("leave").addEventListener("click", () => {
  localStorage.removeItem("rater");
  location.reload();
});

const known = stored("rater", null);
if (known) {
  begin(known).catch((error) => say(error.message, true));
} else {
  byId("rater").focus();
}
