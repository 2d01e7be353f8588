// Cards of LoRA-X: keeps the badges true while they are looked at, and adds "use through LoRA-X" to the built-in's cards.
(function() {
    "use strict";

    const TABS = ["txt2img", "img2img"];
    const PERIOD = 2000;
    const USE = "Use through LoRA-X: follows the checkpoint";
    let state = "";
    let badges = {};
    let refreshed = "";

    const cardsOf = (tab, page) => Array.from(document.querySelectorAll(`#${tab}_${page}_cards > .card`));
    const fileOf = (card) => card.querySelector("[data-clipboard-text]")?.dataset.clipboardText;
    const isSeen = (element) => element !== null && element.offsetParent !== null;

    function showBadges() {
        for (const card of TABS.flatMap((tab) => cardsOf(tab, "lora-x"))) {
            const badge = badges[card.dataset.name];
            const shown = card.querySelector(".lorax-badge");
            if (badge !== undefined && shown !== null && card.dataset.lorax !== badge) {
                shown.outerHTML = badge; // made and escaped by the server
                card.dataset.lorax = badge;
            }
        }
    }

    // A file that came since the page was made has no card yet: press Refresh for the user, once for each list of files.
    function refreshForNewFiles() {
        const names = Object.keys(badges);
        for (const tab of TABS) {
            const there = new Set(cardsOf(tab, "lora-x").map((card) => card.dataset.name));
            const list = tab + names.join("\n");
            if (isSeen(document.getElementById(`${tab}_lora-x_cards`)) && list !== refreshed && names.some((name) => !there.has(name))) {
                refreshed = list;
                document.getElementById(`${tab}_lora-x_extra_refresh_internal`)?.dispatchEvent(new Event("click"));
            }
        }
    }

    async function ask() {
        const answer = await fetch(`./lorax/internal/badges?have=${state}`);
        if (!answer.ok) return;
        const said = await answer.json();
        state = said.state;
        badges = said.badges ?? badges;
        showBadges();
        refreshForNewFiles();
    }

    async function watch() {
        const seen = TABS.some((tab) => isSeen(document.getElementById(`${tab}_lora-x_cards`)));
        if (seen && document.visibilityState === "visible") {
            try {
                await ask();
            } catch {
                // the WebUI is being restarted; asked again in a moment
            }
        }
        setTimeout(watch, PERIOD);
    }

    function useButton(ours) {
        const button = document.createElement("div");
        button.className = "lorax-use card-button";
        button.title = USE;
        button.setAttribute("role", "button");
        button.setAttribute("aria-label", USE);
        button.tabIndex = 0;
        const use = (event) => {
            event.stopPropagation();
            event.preventDefault();
            ours.click();
        };
        button.addEventListener("click", use);
        button.addEventListener("keydown", (event) => (event.key === "Enter" || event.key === " ") && use(event));
        return button;
    }

    // The same file has a card of ours, and a click on that one inserts its tag.
    function addUseButtons() {
        for (const tab of TABS) {
            const bare = cardsOf(tab, "lora").filter((card) => card.querySelector(".lorax-use") === null);
            if (bare.length === 0) continue;
            const ours = new Map(cardsOf(tab, "lora-x").map((card) => [fileOf(card), card.dataset.name]));
            for (const card of bare) {
                const name = ours.get(fileOf(card));
                const row = card.querySelector(".button-row");
                if (name === undefined || row === null) continue;
                row.prepend(useButton({click: () => cardsOf(tab, "lora-x").find((other) => other.dataset.name === name)?.click()}));
            }
        }
    }

    onUiLoaded(watch);
    onAfterUiUpdate(() => {
        showBadges();
        addUseButtons();
    });
})();
