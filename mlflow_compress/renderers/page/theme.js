// Light and dark: the system's setting until somebody chooses. #dark and #light in the address choose too.

const themes = ["auto", "light", "dark"];
const themeButton = byId("theme");

function setTheme(theme) {
  document.documentElement.style.colorScheme = theme === "auto" ? "" : theme;
  themeButton.dataset.theme = theme;
  for (const name of ["title", "aria-label"]) themeButton.setAttribute(name, words.themes[theme]);
}

themeButton.addEventListener("click", () => {
  setTheme(themes[(themes.indexOf(themeButton.dataset.theme) + 1) % themes.length]);
});
setTheme(themes.includes(location.hash.slice(1)) ? location.hash.slice(1) : "auto");
themeButton.hidden = false;
