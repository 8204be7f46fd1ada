"""The pull-request gate: what merging would give, judged before it is merged.

* `repository`    commits of the current git repository, written out into folders of their own
* `requirements`  what the base branch requires of the head, and what a pull request changes of it
* `measuring`     training and judging both commits; nothing is registered or rolled out
* `table`         the report's lines, from decisions and comparisons
* `report`        the document `pr-gate.json`
* `markdown`, `annotations`, `sarif`, `results`   the same for people and for CI
* `comment`, `github`, `gitlab`, `api`            the comment that is made once and replaced from then on
"""
