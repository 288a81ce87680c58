"""The compiled languages whose repositories can be graded."""

from __future__ import annotations

from alignment.grading.projects.go_language import GoLanguage
from alignment.grading.projects.project_language import ProjectLanguage

PROJECT_LANGUAGES: dict[str, ProjectLanguage] = {language.name: language for language in (GoLanguage(),)}
