"""The commands in the README and in docs/, run as a reader runs them, with the output that the pages show."""

import re
from pathlib import Path

import pytest

from tests.journeys.pages import ROOT, Desk, blocks, first_words

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]

NEED_MORE = {"apt-get", "aws", "docker", "export", "git", "make", "npx", "pip"}
"""Commands of `sh` blocks that need an account, a network, more permissions or a checkout. They do not run here."""

NEED_ACCOUNT = {"countermark key --table", "countermark match photo --deployment URL"}
"""Commands of countermark's own that need an AWS account."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_do_what_it_shows(page: Path, tmp_path: Path) -> None:
    shown = sum(block.text.count("\n$ ") + block.text.startswith("$ ") for block in blocks(page))
    with Desk(tmp_path) as desk:
        assert desk.follow(page) >= shown


def test_the_readme_shows_the_whole_job() -> None:
    shown = " ".join(block.text for block in blocks(ROOT / "README.md"))
    for command in ("bank create", "bank add", "match photo", "bank disable", "--ratio", "fetch", "serve", "/m/lookup"):
        assert command in shown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_command_that_is_not_run_here_is_of_a_known_kind(page: Path) -> None:
    for word, line in first_words(page).items():
        assert (
            word in NEED_MORE or re.match(r"countermark serve --port \d+", line) or line.startswith(tuple(NEED_ACCOUNT))
        ), f"{line!r}: use a console block, which runs"


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *PAGES[1:]], ids=lambda page: page.name)
def test_the_make_targets_that_a_page_names_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"`make ([a-z-]+)", page.read_text(encoding="utf-8")))
    assert named <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


def test_the_pages_that_documents_link_to_exist() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_is_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in PAGES[1:]:
        assert f"(docs/{page.name})" in readme, page.name


def test_every_page_says_what_it_is_for() -> None:
    """The first paragraph of a page says what it is for, and for whom."""
    for page in PAGES[1:]:
        first = page.read_text(encoding="utf-8").split("\n\n")[1]
        assert first.startswith("This page"), page.name
