"use strict";
// Motion is one click from standing still, for whoever is distracted by it.
const button = document.getElementById("motion");
const pictures = document.querySelectorAll("img[data-moving]");
if (pictures.length) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const pause = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(pause));
    button.textContent = pause ? "Play pictures" : "Pause pictures";
    for (const picture of pictures) {
      picture.src = pause ? picture.dataset.still : picture.dataset.moving;
    }
  });
}
