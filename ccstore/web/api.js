// Questions to the server over HTTP, with the token of whoever looks. The token lives in this tab alone.

const KEY = "ccstore.token";

export const token = () => sessionStorage.getItem(KEY) || "";

export class ApiError extends Error {
  constructor(status, text) { super(text); this.status = status; }
}

/** Ask for JSON; asks the user for a token where one is wanted. */
export async function get(path, { body, signal } = {}) {
  for (;;) {
    const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
    if (body) headers["Content-Type"] = "application/json";
    const answer = await fetch(path, { headers, signal, method: body ? "POST" : "GET", body: body && JSON.stringify(body) });
    if (answer.status === 401 || answer.status === 403) {
      await login(await text(answer));
      continue;
    }
    if (!answer.ok) throw new ApiError(answer.status, await text(answer));
    return answer.json();
  }
}

async function text(answer) {
  const body = await answer.text();
  try { return JSON.parse(body).error || body; } catch { return body.trim() || `${answer.status}`; }
}

let asking = null;

/** Ask the user for a token, once for all who wait. */
export function login(reason) {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("login");
    const input = dialog.querySelector("input");
    document.getElementById("login-error").textContent = token() ? reason : "";
    dialog.addEventListener("close", () => {
      sessionStorage.setItem(KEY, input.value.trim());
      input.value = "";
      asking = null;
      resolve();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}
