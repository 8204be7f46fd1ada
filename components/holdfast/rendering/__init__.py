"""Pages for people: HTML files that need no network and no script, with charts as inline SVG.

`page` puts articles of `blocks` into the template and its style sheet; `charts` draws, with the elements of `svg`;
`numbers` writes rates, intervals and durations; `rollout_chart` shows the traffic of a rollout. The report of a run and
the incident report of a rollout are both made of these.
"""
