// Hands the token behind the # over when somebody presses the button, and shows what came of it.
"use strict";

const token = new URLSearchParams(location.hash.slice(1)).get("token") || "";
// Neither the history nor a screenshot needs it.
history.replaceState(null, "", location.pathname);

const form = document.querySelector("form");
const say = (outcome) => {
  for (const line of document.querySelectorAll("[data-outcome]")) {
    line.hidden = line.dataset.outcome !== outcome;
  }
};

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  const body = { token };
  const password = form.querySelector("input");
  if (password) body.new_password = password.value;
  try {
    const answer = await fetch(form.dataset.door, {
      method: form.dataset.method,
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    if (answer.ok) {
      form.hidden = true;
      say("done");
      return;
    }
    say(answer.status === 410 ? "expired" : answer.status === 422 && password ? "weak" : "failed");
  } catch {
    say("failed");
  }
  button.disabled = false;
});

if (!token) say("expired");
