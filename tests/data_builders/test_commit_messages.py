"""Commit messages: what is removed from them, and which commits they leave out."""

from __future__ import annotations

import pytest

from data_builders.commit_messages import drop_by_message, names_of, subject_and_body

SUBJECT = "Return zero for the mean of no prices"
NAMES = names_of(["Anna Kork", "Otto van Zinn", "root", "Łukasz Żak", "dev 1"])


def reason(message: str) -> str:
    return drop_by_message(message, NAMES, imperative=True, min_characters=11, min_words=5)


@pytest.mark.parametrize(
    "line",
    [
        "Patch by Bea Lind.", "Original patch from Bea Lind", "Thanks, Bea Lind!", "Thanks to @bealind for the hint.",
        "Kudos to Bea for the report", "Reported by: Bea Lind <bea@shop.example>", "Suggested-by: Bea Lind",
        "Helped-by: Bea Lind", "Authors: Bea Lind, Otto Zinn", "Found by Bea Lind while testing.",
        "As Bea Lind pointed out, this was wrong.", "@bealind noticed the wrong result.", "cc @bealind", "/cc @bealind",
        "Reviewed with Bea Lind.", "Co-authored-by: bealind <1+bealind@users.noreply.example>", "By Bea Lind",
        "Anna Kork found this one.", "This was anna kork's idea, says Otto van Zinn.", "Łukasz Żak measured it.",
        "Discussed with Bea Lind", "Reviewed-by: Bea", "Approved-by: @bealind", "Contributed by bea@shop.example",
        "    Signed-off-by: Bea Lind <bea@shop.example>", "* Tested-by: Bea Lind",
    ],
)  # fmt: skip
def test_lines_about_people_are_removed_from_the_body(line: str) -> None:
    message = f"{SUBJECT}\n\nAn empty list has no mean.\n\n{line}\n"
    assert subject_and_body(message, NAMES) == (SUBJECT, "An empty list has no mean.")


def test_a_sentence_about_a_person_is_removed_from_a_paragraph() -> None:
    body = "An empty list has no mean. Thanks to Bea Lind\nfor the report. Zero is what callers expect."
    assert subject_and_body(f"{SUBJECT}\n\n{body}", NAMES)[1] == (
        "An empty list has no mean. Zero is what callers expect."
    )


def test_the_rest_of_a_list_entry_with_a_name_stays() -> None:
    message = f"{SUBJECT}\n\n* mean: no division by zero (Bea Lind)\n* total: rounded (@bealind)"
    assert subject_and_body(message)[1] == "* mean: no division by zero\n* total: rounded"


@pytest.mark.parametrize(
    "line",
    [
        "Closes #128", "Fixes: #128, #129", "See https://shop.example/team/shop/issues/128", "SHOP-128", "(SHOP-128)",
        "Issue 128", "Ref: SHOP-128", "Bug: 128", "Change-Id: I7c1e9a40d5b2", "PiperOrigin-RevId: 412345678",
        "git-svn-id: https://svn.example/trunk@128 abc", "Follow-up to 7c1e9a40d5b2.", "This reverts commit 7c1e9a40d5b2.",
        "Regression of 7c1e9a40d5b2, which broke it.", "(cherry picked from commit 7c1e9a40d5b2)", "PR #128",
        "Differential Revision: D128", "Backport of gh-128", "bpo-44210", "Related to !128 and !129",
        "Part-of: <https://shop.example/team/shop/-/merge_requests/128>", "Gitlab-Issue: 128", "Depends-On: I7c1e9a4",
    ],
)  # fmt: skip
def test_lines_that_point_elsewhere_are_removed_from_the_body(line: str) -> None:
    assert subject_and_body(f"{SUBJECT}\n\nAn empty list has no mean.\n\n{line}\n") == (
        SUBJECT,
        "An empty list has no mean.",
    )


@pytest.mark.parametrize(
    "line",
    [
        "Fixes the crash for empty lists by returning zero.", "Ref counting of the list is not touched.",
        "See also the documentation of `sum`.", "Closes the file even after an error.", "Cc is a header of messages.",
        "Text in UTF-8 and ISO-8859-1 is read.", "The SHA-256 of the text is the key.", "RFC-3986 asks for it.",
        "Issues a warning for negative prices.", "The colour is #ff00aa11 now.", "It was deadbeef before.",
        "Prices come from Python 3.11 or later.", "This fixes a bug where the mean was wrong.",
        "The decorator @property is gone.", "Values are taken by name.", "Link to the page of the shop.",
        "See https://docs.example/en/latest/mean for the formula.", "The limit is 1000000 prices.",
    ],
)  # fmt: skip
def test_ordinary_sentences_stay_in_the_body(line: str) -> None:
    assert subject_and_body(f"{SUBJECT}\n\n{line}\n") == (SUBJECT, line)


@pytest.mark.parametrize(
    ("subject", "cleaned"),
    [
        ("fix(mean): return zero for no prices (#12)", "Return zero for no prices"),
        ("SHOP-128: return zero for no prices", "Return zero for no prices"),
        ("[SHOP-128] return zero for no prices", "Return zero for no prices"),
        ("Issue 128: return zero for no prices", "Return zero for no prices"),
        ("Fixes #128: return zero for no prices", "Return zero for no prices"),
        ("#128 return zero for no prices", "Return zero for no prices"),
        ("Return zero for no prices, fixes #128", "Return zero for no prices"),
        ("Return zero for no prices (closes SHOP-128)", "Return zero for no prices"),
        ("Return zero for no prices, by Bea Lind", "Return zero for no prices"),
        ("Return zero for no prices (thanks @bealind)", "Return zero for no prices (thanks @bealind)"),
        ("Read prices in ISO-8859-1", "Read prices in ISO-8859-1"),
    ],
)
def test_prefixes_and_ends_of_a_subject_are_removed(subject: str, cleaned: str) -> None:
    assert subject_and_body(subject)[0] == cleaned


@pytest.mark.parametrize(
    "verb",
    [
        "Document", "Implement", "Apply", "Embed", "Increment", "Supply", "Mention", "Comment", "Decrement", "Multiply",
        "Bring", "Ping", "Position", "Partition", "Condition", "Feed", "Seed", "Reimplement", "Re-apply", "Uncomment",
        "Augment", "Harness", "Reply", "Transition", "String", "Exceed", "Add", "Release", "Version", "Wipe",
    ],
)  # fmt: skip
def test_a_verb_in_the_imperative_is_accepted(verb: str) -> None:
    assert reason(f"{verb} the mean of prices where there are none") == ""


@pytest.mark.parametrize("word", ["Fixed", "Adding", "Documentation", "Minor", "The", "Documented", "Quickly", "Typo"])
def test_other_first_words_are_not_imperative(word: str) -> None:
    assert reason(f"{word} the mean of prices where there are none") == "not_imperative"


@pytest.mark.parametrize(
    "subject",
    [
        "Merge the two loops over prices into one", "Bump the pointer only after the price was read",
        "Release the lock before the price is written", "Version the keys of the cache of prices",
        "Revert to the default price when none is given", "Update the lock that guards all prices",
        "Merge neighbouring ranges of prices before sorting", "Wipe the cache when a price changes",
    ],
)  # fmt: skip
def test_a_change_of_code_is_no_merge_and_no_bump(subject: str) -> None:
    assert reason(subject) == ""


@pytest.mark.parametrize(
    "subject",
    [
        "Merge branch 'side' into the main one", "Merge pull request #12 from anna/side", "Merge side into main again now",
        "Bump version of everything to two", "Bump the version number to 2.1", "Bump flask from 1.0 to 2.0",
        "Revert the change of the last commit", 'Revert "Return zero for no prices"', "Release version 2.1 of the shop",
        "Update the version number of the shop", "Update requirements of the whole shop", "WIP: something with all the prices",
        "Prepare the release of version 2.1", "Version bump to 2.1 of the shop", "Bump the actions group with 3 updates",
    ],
)  # fmt: skip
def test_merges_bumps_and_reverts_are_left_out(subject: str) -> None:
    assert reason(subject) == "merge_bump_or_revert"


@pytest.mark.parametrize(
    "subject",
    [
        "Incorporate suggestions from the code review", "Address review comments of the last round",
        "Apply suggestions from code review", "Try to fix the build once more", "Fix the build on Windows again",
        "Fix a few more things here and there", "Make the linter happy once more", "Clean up the code a little bit",
        "Address feedback from the last meeting", "Try something else with the prices", "Fix failing tests on CI again",
        "Forgot to add the new file", "Implement the reviewer's suggestions for mean", "Commit the current state of work",
        "Make pylint and mypy happy", "Another attempt to fix the prices", "Apply changes requested in the PR review",
    ],
)  # fmt: skip
def test_subjects_that_say_nothing_are_left_out(subject: str) -> None:
    assert reason(subject) in ("says_nothing", "short_subject")


@pytest.mark.parametrize(
    "subject",
    [
        "Apply the discount to the suggestion of prices", "Fix the tests of the mean of prices", "Add review scores to each price",
        "Try the cache before the database of prices", "Clean up temporary files after each sale", "Add feedback on successful payment of prices",
        "Handle comments in the file of prices", "Fix some prices being rounded twice", "Make the build of the index lazy",
    ],
)  # fmt: skip
def test_subjects_that_ask_for_something_are_kept(subject: str) -> None:
    assert reason(subject) == ""


@pytest.mark.parametrize(
    ("subject", "rule"),
    [
        ("Fix #128 in the mean of empty lists", "points_elsewhere"),
        ("Fix regression from 7c1e9a40d5b2 in shop module", "points_elsewhere"),
        ("Use the mean of prices, which includes team/shop#128", "points_elsewhere"),
        ("Use the idea of Anna Kork for prices", "names_a_person"),
        ("Return zero as @bealind suggested for prices", "names_a_person"),
        ("Round prices reported by Bea Lind again differently", "names_a_person"),
    ],
)
def test_subjects_about_issues_commits_and_people_are_left_out(subject: str, rule: str) -> None:
    assert reason(subject) == rule
